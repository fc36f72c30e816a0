"""Calling a hope-serve server. Needs grpc and the project's nouns, never torch.

``AsyncHopeClient`` for asyncio, ``HopeClient`` for everyone else. Refusals arrive as ``hope_serve.errors``.
"""

from hope_serve.api import (
    AdaptMode,
    AdaptOptions,
    Delta,
    Ended,
    Learn,
    MemoryChoice,
    Message,
    OnMissing,
    SamplingParams,
    Source,
    Started,
)
from hope_serve.client.aio import AsyncHopeClient
from hope_serve.client.blocking import HopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.client.security import Tls
from hope_serve.wire.calls import ProbeCall
from hope_serve.wire.parts import parts_digest

__all__ = [
    "AdaptMode",
    "AdaptOptions",
    "AsyncHopeClient",
    "ChannelOptions",
    "Delta",
    "Ended",
    "HopeClient",
    "Learn",
    "MemoryChoice",
    "Message",
    "OnMissing",
    "ProbeCall",
    "SamplingParams",
    "Source",
    "Started",
    "Tls",
    "parts_digest",
]
