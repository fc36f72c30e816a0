"""A whole server of a converted model, through a real client: every RPC means what it means for Titans."""

from __future__ import annotations

import pytest
import pytest_asyncio
from support.attention_checkpoint import converted, write_part
from support.other_makers import small_tokenizer
from support.server_running import connect, server_config
from support.waiting import until

from hope_serve.api import Learn, MemoryChoice, Message, SamplingParams, SessionOutcome
from hope_serve.client import AsyncHopeClient
from hope_serve.errors import FailedPrecondition, InvalidRequest
from hope_serve.server.serve import running

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
TOLD = "my sister lives in a small town by the sea. the sister, the town, the sea. "

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = converted(tmp_path_factory.mktemp("base"), max_position_embeddings=512)[0]
    write_part(folder / "memory.safetensors", folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(folder, tmp_path_factory):
    async with running(server_config(folder, tmp_path_factory.mktemp("store"), max_context_tokens=256)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server):
    async with connect(server) as connected:
        yield connected


async def said(client: AsyncHopeClient, content, **options):
    return await client.generate(content, **({"sampling": GREEDY} | options))


async def test_the_model_says_what_it_is_and_what_it_holds(client):
    model = await client.get_model()
    assert (model.max_context_tokens, model.max_prompt_tokens, model.max_adapt_tokens) == (256, 256, 256)
    assert model.level_chunk_sizes == (16,) and model.num_heads == 4
    assert model.memory_bytes == 3 * 32 * 4 * 2  # three layers, fp16


async def test_text_is_tokenised_by_the_sources_own_tokenizer(client):
    ids = await client.tokenize("my sister <|im_end|>")
    assert 2 not in ids and await client.detokenize(ids) == "my sister <|im_end|>"
    assert await client.tokenize("the sea") == tuple(small_tokenizer().encode("the sea").ids)


async def test_turns_are_written_by_the_sources_template(client):
    text = "<|im_start|>user\nthe sea<|im_end|>\n<|im_start|>assistant\n"
    ids = small_tokenizer().encode(text).ids
    by_turns = await said(client, [Message(role="user", text="the sea")])
    assert by_turns.choices[0].token_ids == (await said(client, ids)).choices[0].token_ids
    assert by_turns.choices[0].ended.usage.prompt_tokens == len(ids)


async def test_a_lesson_moves_its_own_users_answers_alone(client):
    before = await client.score("my sister", ["lives in a small town"], user_id="eve")
    result = await client.adapt("eve", TOLD)
    assert result.metrics.nll_after < result.metrics.nll_before
    after = await client.score("my sister", ["lives in a small town"], user_id="eve")
    assert after[0].logprob > before[0].logprob
    assert await client.score("my sister", ["lives in a small town"], user_id="somebody else") == before


async def test_a_history_in_parts_is_one_version(client):
    streamed = await client.adapt_stream("streamed", [TOLD] * 5)
    assert streamed.result.version == 1 and (await client.get_memory("streamed")).tokens_learned == 100


async def test_a_conversation_goes_on_by_its_turns_and_says_what_it_read_again(client):
    first = await said(client, [Message(role="user", text="the sea")], user_id="ann", session_id="s")
    second = await said(client, [Message(role="user", text="a town")], user_id="ann", session_id="s")
    assert (first.started.session, second.started.session) == (SessionOutcome.FRESH, SessionOutcome.RESUMED)
    tokenizer = small_tokenizer()
    opened = tokenizer.encode("<|im_start|>user\nthe sea<|im_end|>\n<|im_start|>assistant\n").ids
    follows = tokenizer.encode("\n<|im_start|>user\na town<|im_end|>\n<|im_start|>assistant\n").ids
    usage = second.choices[0].ended.usage
    assert (usage.reread_tokens, usage.prompt_tokens) == (len(opened) + 6, len(follows))
    whole = await said(client, [*opened, *first.choices[0].token_ids, *follows])
    assert second.choices[0].token_ids == whole.choices[0].token_ids


async def test_a_conversation_that_outgrows_the_context_is_refused_by_name(client):
    with pytest.raises(InvalidRequest, match=r"more than the context of 256 tokens.*engine\.max_context_tokens"):
        await said(client, "the sea " * 20, sampling=SamplingParams(max_tokens=250))


async def test_an_exchange_is_learned_whole_when_asked(client):
    turns = [Message(role="user", text=TOLD)]
    await said(client, turns, user_id="learner", learn=Learn.WHOLE_EXCHANGE)

    async def learned():
        return "learner" in {memory.user async for memory in client.list_memories()}

    await until(learned, 30)
    assert (await client.get_memory("learner")).tokens_learned > len(small_tokenizer().encode(TOLD).ids)


async def test_memories_are_forked_rolled_back_evaluated_and_travel(client):
    await client.adapt("mover", TOLD, request_id="one")
    await client.adapt("mover", TOLD, request_id="two")
    sealed = b"".join([piece async for piece in client.export_memory("mover")])
    assert await client.import_memory("moved", [sealed]) == 1
    assert await client.fork_memory("mover", "forked", request_id="f") == 1
    replies = [await said(client, "my sister", user_id=user) for user in ("mover", "moved", "forked")]
    assert len({reply.choices[0].token_ids for reply in replies}) == 1
    assert await client.rollback_memory("mover", 1, request_id="back") == 3
    report = await client.get_memory("mover")
    assert report.version == 3 and report.levels[0].drift > 0
    await client.delete_memory("mover")
    assert (await said(client, "my sister", user_id="mover")).started.memory_version == 0


async def test_a_memory_of_another_part_is_refused_here(client, folder, tmp_path):
    await client.adapt("mine", TOLD)
    sealed = b"".join([piece async for piece in client.export_memory("mine")])
    other = write_part(tmp_path / "other.safetensors", folder, seed=11)
    config = server_config(folder, tmp_path)
    config = type(config)(
        **{n: getattr(config, n) for n in config.__struct_fields__ if n != "model"}
        | {"model": type(config.model)(checkpoint=folder, part=other, device="cpu")}
    )
    async with running(config) as server, connect(server) as strange:
        with pytest.raises(FailedPrecondition):
            await strange.import_memory("mine", [sealed])


async def test_an_exact_version_is_read(client):
    await client.adapt("chooser", TOLD, request_id="one")
    await client.adapt("chooser", TOLD, request_id="two")
    choice = MemoryChoice(exact_version=1)
    assert (await said(client, "my sister", user_id="chooser", memory=choice)).started.memory_version == 1
