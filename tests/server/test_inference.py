"""InferenceService through a real client."""

from __future__ import annotations

import pytest
from support.server_running import connect, server_config
from support.tiny_model import tiny_model, tiny_tokenizer, tokenizer_bytes

from hope_serve.api import Delta, Ended, FinishReason, Message, SamplingParams, SessionOutcome, Started
from hope_serve.errors import InvalidRequest
from hope_serve.model.checkpoint import save_checkpoint
from hope_serve.server.serve import running

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


async def test_a_stream_is_started_then_deltas_then_one_end_for_each_choice(client):
    sampling = SamplingParams(max_tokens=4, n=3, ignore_eos=True, seed=1)
    events = [event async for event in client.stream("The ferry", sampling=sampling)]
    assert isinstance(events[0], Started)
    assert sorted(e.choice for e in events if isinstance(e, Ended)) == [0, 1, 2]
    for choice in range(3):
        own = [e for e in events[1:] if e.choice == choice]
        assert isinstance(own[-1], Ended)
        assert all(isinstance(e, Delta) for e in own[:-1])


async def test_generate_says_what_the_stream_says(client):
    whole = await client.generate("The ferry leaves", sampling=GREEDY, request_id="named")
    events = [e async for e in client.stream("The ferry leaves", sampling=GREEDY)]
    assert whole.choices[0].text == "".join(e.text for e in events if isinstance(e, Delta))
    assert whole.choices[0].ended.finish_reason is FinishReason.LENGTH
    assert whole.choices[0].ended.usage.completion_tokens == 8
    assert whole.started == Started(memory_version=0, session=SessionOutcome.NONE, request_id="named")


async def test_a_prompt_means_the_same_as_text_as_ids_and_as_turns(client):
    ids = await client.tokenize([Message(role="user", text="What is my dog called?")])
    turns = await client.generate([Message(role="user", text="What is my dog called?")], sampling=GREEDY)
    assert (await client.generate(ids, sampling=GREEDY)).choices[0].text == turns.choices[0].text


async def test_logprobs_come_with_alternatives_when_asked(client):
    sampling = SamplingParams(temperature=0.0, max_tokens=3, logprobs=2, ignore_eos=True)
    choice = (await client.generate("tea", sampling=sampling)).choices[0]
    assert len(choice.logprobs) == 3
    for token, entry in zip(choice.token_ids, choice.logprobs, strict=True):
        assert entry.token == entry.top[0][0] == token
        assert len(entry.top) == 2


async def test_score_prefers_what_greedy_decoding_says(client):
    said = (await client.generate("The gulls", sampling=GREEDY)).choices[0].token_ids
    other = [t + 1 if t < 100 else t - 1 for t in said]
    best, worse = await client.score("The gulls", [said, other])
    assert best.is_greedy
    assert not worse.is_greedy
    assert best.logprob == sum(best.token_logprobs) > worse.logprob


async def test_text_survives_tokenize_and_detokenize(client):
    text = "naïve café 日本語 🎉"
    assert await client.detokenize(await client.tokenize(text)) == text


async def test_a_long_text_is_tokenised_like_a_short_one(client):
    long = "tea without sugar " * 1000
    assert await client.detokenize(await client.tokenize(long)) == long


@pytest.fixture
def wide_folder(tmp_path):
    """A checkpoint whose model has twenty ids more than its tokenizer."""
    folder = tmp_path / "wide"
    size = tiny_tokenizer().vocab_size + 20
    save_checkpoint(folder, tiny_model(vocab_size=size), tokenizer=tokenizer_bytes(), card="")
    return folder


async def test_ids_that_the_tokenizer_lacks_are_generated_as_nothing_and_refused_as_text(wide_folder, tmp_path):
    size = tiny_tokenizer().vocab_size
    forced = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, logit_bias=((size + 3, 100.0),))
    async with running(server_config(wide_folder, tmp_path)) as server, connect(server) as client:
        [choice] = (await client.generate("The ferry", sampling=forced)).choices
        assert (choice.token_ids, choice.text) == ((size + 3,) * 3, "")
        with pytest.raises(InvalidRequest, match=rf"token_ids\[1\]: {size} is no token of the tokenizer") as refused:
            await client.detokenize([7, size])
        assert refused.value.reason == "UNKNOWN_TOKEN"


async def test_get_model_describes_the_checkpoint(client, server):
    assert await client.get_model() == server.service.info


async def test_a_text_in_a_session_goes_on_where_the_last_turn_ended(client):
    """Two turns of one session are one document: the second is not opened again."""
    whole = await client.generate("The ferry leaves the harbour", sampling=GREEDY, user_id="ann", session_id="one")
    assert whole.started.session is SessionOutcome.FRESH
    first = await client.generate(
        "The ferry leaves", sampling=SamplingParams(temperature=0.0, max_tokens=1), user_id="ann", session_id="two"
    )
    second = await client.generate(" at nine", sampling=GREEDY, user_id="ann", session_id="two")
    ids = [
        1,
        *await client.tokenize("The ferry leaves"),
        *first.choices[0].token_ids,
        *await client.tokenize(" at nine"),
    ]
    assert second.started.session is SessionOutcome.RESUMED
    assert second.choices[0].token_ids == (await client.generate(ids, sampling=GREEDY)).choices[0].token_ids


async def test_a_deleted_session_begins_afresh(client):
    await client.generate("hello", sampling=GREEDY, user_id="ann", session_id="s")
    assert await client.delete_session("ann", "s")
    assert not await client.delete_session("ann", "s")
    again = await client.generate("hello", sampling=GREEDY, user_id="ann", session_id="s")
    assert again.started.session is SessionOutcome.FRESH
