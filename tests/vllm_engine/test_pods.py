"""Pods of different roles and engines on one real Valkey: what one learns, the vLLM pod's next call reads."""

from __future__ import annotations

import pytest
import pytest_asyncio
from support.vllm_pods import GREEDY, LESSONS, said, store_and_pods

from hope_serve.errors import FailedPrecondition

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pods(tmp_path_factory):
    async with (
        store_and_pods(tmp_path_factory.mktemp("pods")) as open_pod,
        open_pod(role="adapt") as learns,
        open_pod(backend="vllm", role="generate") as reads,
        open_pod() as native,
    ):
        yield learns, reads, native


async def test_what_an_adapt_pod_learned_the_vllm_pods_next_call_reads(pods):
    learns, reads, native = pods
    plain = await said(reads, "ann")
    assert plain == await said(native, "ann")
    answers = set()
    for lesson in LESSONS:
        version = (await learns.adapt("ann", lesson)).version
        read = await said(reads, "ann", min_version=version)
        assert read == await said(native, "ann", exact_version=version)
        answers.add(read[1])
    assert len(answers | {plain[1]}) == 3


async def test_a_conversation_moves_between_the_vllm_pod_and_a_native_one(pods):
    _, reads, native = pods
    ask = lambda pod, key, text: pod.generate(text, user_id="ann", session_id=key, sampling=GREEDY)
    first, alone = await ask(reads, "moves", "What is"), await ask(native, "stays", "What is")
    assert first.choices[0].token_ids == alone.choices[0].token_ids
    second, whole = await ask(native, "moves", " my dog"), await ask(native, "stays", " my dog")
    third, all_of_it = await ask(reads, "moves", " called?"), await ask(native, "stays", " called?")
    assert second.choices[0].token_ids == whole.choices[0].token_ids
    assert third.choices[0].token_ids == all_of_it.choices[0].token_ids


async def test_each_role_refuses_what_is_the_others(pods):
    learns, reads, _ = pods
    with pytest.raises(FailedPrecondition, match=r"engine\.role of this server is generate") as refusal:
        await reads.adapt("bob", LESSONS[0])
    assert refusal.value.reason == "ROLE"
    with pytest.raises(FailedPrecondition, match=r"engine\.role of this server is adapt") as refusal:
        await learns.generate("My dog", sampling=GREEDY)
    assert refusal.value.reason == "ROLE"
