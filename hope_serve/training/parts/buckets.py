"""The kinds of batches that a memory part is trained on, from short lessons to long lives."""

from __future__ import annotations

import dataclasses

from hope_serve.model.attention import AttentionShape
from hope_serve.training.parts.packing import Bucket

CHUNK_TOKENS = 256


def _bucket(
    name: str, users: int, chunks: tuple[int, int, int, int], rows: tuple[int, int], facts: tuple[int, int]
) -> Bucket:
    """chunks: how many, of what size, with facts, learned through; rows: tokens asked and of other text.

    A chunk smaller than a server's holds one whole adaptation.
    """
    count, tokens, with_facts, learned = chunks
    return Bucket(
        name=name,
        users=users,
        chunks=count,
        chunk_tokens=tokens,
        fact_chunks=with_facts,
        learned_chunks=learned,
        ask_tokens=rows[0],
        other_tokens=rows[1],
        facts=facts,
        past_chunks=1 if tokens == CHUNK_TOKENS else 0,
    )


BUCKETS = (
    _bucket("short", 96, (1, 64, 1, 1), (192, 48), (1, 3)),
    _bucket("message", 48, (1, 160, 1, 1), (320, 96), (2, 9)),
    _bucket("page", 18, (2, CHUNK_TOKENS, 2, 2), (576, 192), (4, 28)),
    _bucket("chapter", 10, (4, CHUNK_TOKENS, 4, 4), (768, 256), (8, 64)),
    _bucket("two messages", 40, (2, 96, 2, 2), (320, 96), (2, 9)),
    _bucket("four messages", 22, (4, 96, 4, 4), (448, 128), (4, 18)),
    _bucket("eight messages", 11, (8, 96, 8, 8), (640, 192), (8, 36)),
    _bucket("later", 18, (8, 128, 1, 3), (384, 192), (2, 7)),
    _bucket("long after", 10, (32, 128, 1, 2), (384, 192), (2, 7)),
)
TIMES = (3, 3, 2, 1, 2, 2, 1, 1, 1)
"""How often each bucket comes among sixteen batches."""


def batch_flops(shape: AttentionShape, bucket: Bucket) -> float:
    """Floating point operations of the weights' products in one batch, without those of attention or of padding."""
    chunk = bucket.users * bucket.chunk_tokens
    told = chunk * (6 * bucket.learned_chunks + 2 * (bucket.chunks - bucket.learned_chunks))
    return 2.0 * shape.num_weights * (told + bucket.users * (3 * bucket.ask_tokens + 4 * bucket.other_tokens))


def batch_tokens(bucket: Bucket) -> int:
    """Tokens of one batch, padding included."""
    return bucket.users * (bucket.chunks * bucket.chunk_tokens + bucket.ask_tokens + bucket.other_tokens)


def shrunk(buckets: tuple[Bucket, ...], divisor: int) -> tuple[Bucket, ...]:
    """The same buckets with fewer users, for smaller devices."""
    return tuple(dataclasses.replace(bucket, users=max(2, bucket.users // divisor)) for bucket in buckets)
