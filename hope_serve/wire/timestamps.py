"""Unix seconds and timestamps, to the microsecond; 0 is no time at all."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def write_time(seconds: float) -> Timestamp | None:
    """A timestamp, or None for 0."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp if seconds else None


def read_time(stamp: Timestamp) -> float:
    """Unix seconds; a timestamp outside the calendar is a number outside every range, for its field to refuse."""
    return (stamp.seconds * 10**6 + stamp.nanos // 1000) / 1e6
