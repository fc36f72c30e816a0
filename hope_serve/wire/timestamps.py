"""Unix seconds and timestamps, to the microsecond; 0 is no time at all."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def write_time(seconds: float) -> Timestamp | None:
    """A timestamp, or None for 0."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp if seconds else None


def read_time(stamp: Timestamp) -> float:
    """Unix seconds."""
    return stamp.ToMicroseconds() / 1e6
