"""A subject teaches and asks a real server, and leaves nobody behind."""

from __future__ import annotations

import asyncio

import pytest

TEXT = "The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. "


async def test_what_was_taught_is_asked_and_then_forgotten(open_subject):
    async with open_subject() as subject:
        user = await subject.taught([TEXT, TEXT])
        assert await subject.memory_bytes(user) > 0
        assert [memory.version async for memory in subject.client.list_memories()] == [2]
        reply = await subject.ask("When does the ferry leave?", user)
        assert reply.text is not None
        assert reply.prompt_tokens > 10
        assert await subject.first_token_seconds("When?", user) > 0
        subject.newcomer()  # who never learned anything
        await subject.forget()
        assert [memory async for memory in subject.client.list_memories()] == []


async def test_a_text_longer_than_an_adapt_goes_in_pieces(open_subject):
    async with open_subject(max_adapt_tokens=40) as subject:
        await subject.taught([TEXT * 4])
        (memory,) = [memory async for memory in subject.client.list_memories()]
        assert memory.version == -(-len(await subject.client.tokenize(TEXT * 4)) // 38)


async def test_a_prompt_longer_than_the_model_takes_is_no_answer(open_subject):
    async with open_subject(max_prompt_tokens=30) as subject:
        assert (await subject.ask(TEXT * 4)).text is None


async def test_no_more_calls_run_at_a_time_than_may(open_subject):
    async with open_subject() as subject:
        under_way, most = 0, 0

        async def call(i):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return i

        assert await subject.gather("stage", (call(i) for i in range(20))) == list(range(20))
        assert most == 4


async def test_a_failing_call_ends_the_others(open_subject):
    async def failing():
        raise ValueError("no")

    async with open_subject() as subject:
        with pytest.raises(ExceptionGroup) as raised:
            await subject.gather("stage", [failing(), asyncio.sleep(60)])
        assert isinstance(raised.value.exceptions[0], ValueError)
