"""One tenant holds every slot, and another one comes."""

from __future__ import annotations

import asyncio

from support.engine_calls import generate, ids

from hope_serve.api import Delta, GenerateRequest, Owner, SamplingParams

GREEDY, MODEST = (Owner(tenant=name, user="u") for name in ("greedy", "modest"))
LONG = 150


async def endless(engine, owner, begun):
    """Draws until it is cancelled."""
    sampling = SamplingParams(max_tokens=2**20, n=4, ignore_eos=True)
    async for event in engine.generate(GenerateRequest(prompt=tuple(ids(1, 5)), owner=owner, sampling=sampling)):
        if isinstance(event, Delta):
            begun.set()


async def test_another_tenant_is_served_while_one_asks_for_every_slot_without_end(open_engine):
    async with open_engine(max_slots=4) as engine:
        begun = asyncio.Event()
        attack = [asyncio.create_task(endless(engine, GREEDY, begun)) for _ in range(3)]
        await begun.wait()
        reply = await generate(engine, ids(2, 5), owner=MODEST, max_tokens=8)
        assert len(reply.tokens) == 8
        assert not any(task.done() for task in attack)
        for task in attack:
            task.cancel()
        await asyncio.gather(*attack, return_exceptions=True)


async def test_who_had_to_give_its_slot_goes_on_where_it_was_bit_for_bit(open_engine):
    """The long one has drawn something already when the others come, and goes on from its state when they have gone."""
    async with open_engine(max_slots=2, deterministic=True) as engine:
        alone = await generate(engine, ids(3, 21), owner=GREEDY, max_tokens=LONG, logprobs=3)
        pair = [
            asyncio.create_task(generate(engine, ids(3, 21), owner=GREEDY, max_tokens=LONG, logprobs=3))
            for _ in range(2)
        ]
        others = 0
        while not any(task.done() for task in pair):
            await generate(engine, ids(4, 5), owner=MODEST, max_tokens=3)
            others += 1
        assert others >= 3
        for reply in await asyncio.gather(*pair):
            assert reply.logprobs == alone.logprobs
            assert reply.text == alone.text
