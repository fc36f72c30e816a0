"""What one side writes, the other reads: every noun survives the wire."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hope_serve.api import (
    AdaptMetrics,
    AdaptMode,
    AdaptOptions,
    AdaptResult,
    Choice,
    Delta,
    Durability,
    Ended,
    ErasureReceipt,
    Evaluation,
    FinishReason,
    Generation,
    Learn,
    LevelReport,
    MemoryChoice,
    MemoryReport,
    MemorySummary,
    Message,
    ModelInfo,
    OnMissing,
    SamplingParams,
    ScoreResult,
    SessionOutcome,
    Source,
    Started,
    Timings,
    TokenLogprob,
    Usage,
    VersionReport,
)
from hope_serve.errors import InvalidRequest
from hope_serve.pb.hope.v1 import adaptation_pb2, content_pb2, inference_pb2, memory_pb2
from hope_serve.wire import adaptation, enums, generate, memory, score
from hope_serve.wire.calls import AdaptCall, EvaluateCall, GenerateCall, ProbeCall, ScoreCall

TIME = st.integers(0, 4 * 10**15).map(lambda us: us / 1e6)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8).map(tuple)
COUNT = st.integers(0, 2**40)
REAL = st.floats(-1e6, 1e6)
NARROW = st.floats(-1e6, 0.0, width=32)
TURNS = st.lists(st.builds(Message, role=st.sampled_from(["user", "assistant", "system"]), text=TEXT), min_size=1)
KINDS = [kind.value for kind in enums.VersionKind]
CONTENT = TEXT | IDS | TURNS.map(tuple)
SAMPLING = st.builds(
    SamplingParams,
    temperature=st.floats(0, 100),
    top_p=st.floats(0.001, 1),
    top_k=st.integers(0, 1000),
    seed=st.none() | st.integers(0, 2**63 - 1),
    n=st.integers(1, 16),
    max_tokens=st.integers(1, 2**20),
    stop=st.lists(TEXT, max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    logit_bias=st.dictionaries(st.integers(0, 99), st.floats(-100, 100)).map(lambda d: tuple(sorted(d.items()))),
    logprobs=st.none() | st.integers(0, 20),
    ignore_eos=st.booleans(),
)
MEMORY = st.builds(
    MemoryChoice, min_version=st.none() | st.integers(1, 2**62), on_missing=st.sampled_from(OnMissing),
    move_session=st.booleans(),
)  # fmt: skip
LEVEL = st.builds(LevelReport, level=st.integers(0, 7), updates=COUNT, drift=REAL)
SOURCE = st.builds(Source, id=st.text(max_size=5), uri=st.text(max_size=5), time=TIME.filter(lambda t: t < 1e11))
TIMINGS = st.builds(Timings, queue_seconds=REAL, decode_seconds=REAL)
LOGPROB = st.builds(
    TokenLogprob, token=st.integers(0, 99), logprob=NARROW,
    top=st.lists(st.tuples(st.integers(0, 99), NARROW), max_size=2).map(tuple),
)  # fmt: skip
LOGPROBS = st.lists(LOGPROB, max_size=2).map(tuple)
STARTED = st.builds(
    Started, memory_version=COUNT, session=st.sampled_from(SessionOutcome), request_id=st.text(max_size=4)
)
ENDED = st.builds(
    Ended, choice=st.integers(0, 15), finish_reason=st.sampled_from(FinishReason), matched_stop=st.text(max_size=3),
    usage=st.builds(Usage, prompt_tokens=COUNT, completion_tokens=COUNT), timings=TIMINGS,
)  # fmt: skip
DELTA = st.builds(Delta, choice=st.integers(0, 15), text=st.text(), token_ids=IDS, logprobs=LOGPROBS)


@given(
    st.builds(
        GenerateCall, prompt=CONTENT, sampling=SAMPLING, memory=MEMORY, user_id=st.text(max_size=9),
        session_id=st.just("s") | st.just(""), request_id=st.just("r"), priority=st.integers(-100, 100),
    )
)  # fmt: skip
def test_generate_requests(call):
    assert generate.read_generate(generate.write_generate(call)) == call


@pytest.mark.parametrize("learn", [None, *Learn])
def test_what_is_to_be_learned(learn):
    call = GenerateCall(prompt=(Message(role="user", text="hi"),), user_id="ann", learn=learn)
    assert generate.read_generate(generate.write_generate(call)).learn is learn


@given(STARTED | DELTA | ENDED)
def test_events(event):
    assert generate.read_event(generate.write_event(event)) == event


@given(STARTED, ENDED, st.text(), IDS, LOGPROBS)
def test_generations(started, ended, text, ids, logprobs):
    whole = Generation(started=started, choices=(Choice(text=text, token_ids=ids, ended=ended, logprobs=logprobs),))
    assert generate.read_generation(generate.write_generation(whole)) == whole


@given(CONTENT, st.lists(TEXT | IDS, min_size=1, max_size=3), MEMORY)
def test_score_requests(prompt, continuations, choice):
    call = ScoreCall(prompt=prompt, continuations=continuations, user_id="ann", memory=choice)
    assert score.read_score(score.write_score(call)) == call


@given(
    st.lists(st.builds(ScoreResult, logprob=REAL, token_logprobs=st.lists(NARROW).map(tuple), is_greedy=st.booleans()))
)
def test_scores(scores):
    assert score.read_scores(score.write_scores(scores)) == tuple(scores)


@given(
    CONTENT,
    st.builds(
        AdaptOptions, levels=st.sampled_from([(), (0,), (1, 0)]), learning_rate_scale=st.floats(0, 10),
        passes=st.integers(1, 16), max_update_norm=st.floats(0, 1e6), mode=st.sampled_from(AdaptMode),
    ),
    SOURCE,
    st.none() | COUNT,
)  # fmt: skip
def test_adapt_requests(content, options, source, expected):
    call = AdaptCall(
        user_id="a", input=content, request_id="r", options=options, source=source, expected_version=expected
    )
    assert adaptation.read_adapt(adaptation.write_adapt(call)) == call


@given(
    st.builds(
        AdaptResult, version=COUNT, base_version=COUNT, state_digest=st.text(max_size=5), timings=TIMINGS,
        durability=st.sampled_from(Durability), duplicate=st.booleans(),
        metrics=st.builds(AdaptMetrics, nll_before=REAL, clipped=st.booleans(), levels=st.lists(LEVEL).map(tuple)),
    )
)  # fmt: skip
def test_adapt_results(result):
    assert adaptation.read_adapted(adaptation.write_adapted(result)) == result


@given(
    st.builds(
        MemoryReport, version=COUNT, num_bytes=COUNT, tokens_learned=COUNT, levels=st.lists(LEVEL).map(tuple),
        state_digest=st.text(max_size=5), sources=st.lists(SOURCE, max_size=2).map(tuple), updated_at=TIME,
    )
)  # fmt: skip
def test_memories(report):
    assert memory.read_memory(memory.write_memory(report)) == report


@given(
    st.builds(
        VersionReport, version=COUNT, base_version=COUNT, created_at=TIME, kind=st.sampled_from(KINDS),
        request_id=st.text(max_size=5), source=SOURCE, restorable=st.booleans(),
    )
)  # fmt: skip
def test_versions(report):
    assert memory.read_versions(memory.write_versions([report])) == (report,)


@given(
    st.builds(
        EvaluateCall, user_id=TEXT, versions=st.lists(st.integers(1, 2**40), max_size=8, unique=True).map(tuple),
        probes=st.lists(
            st.builds(ProbeCall, continuation=TEXT | IDS, prompt=st.none() | CONTENT), min_size=1, max_size=3
        ).map(tuple),
    )
)  # fmt: skip
def test_evaluations_asked_for(call):
    assert memory.read_evaluate(memory.write_evaluate(call)) == call


@given(
    st.builds(
        Evaluation, version=COUNT, nll=REAL, num_tokens=COUNT,
        scores=st.lists(
            st.builds(
                ScoreResult, logprob=REAL, token_logprobs=st.lists(NARROW).map(tuple), is_greedy=st.booleans()
            ), max_size=2,
        ).map(tuple),
    )
)  # fmt: skip
def test_evaluations(evaluation):
    assert memory.read_evaluations(memory.write_evaluations([evaluation])) == (evaluation,)


@given(st.builds(MemorySummary, user=st.text(), version=COUNT, num_bytes=COUNT, updated_at=TIME), st.text())
def test_listings(summary, token):
    assert memory.read_page(memory.write_page([summary], token)) == ((summary,), token)


@given(st.builds(ErasureReceipt, receipt_id=st.text(), versions_removed=COUNT, sessions_removed=COUNT, erased_at=TIME))
def test_receipts(receipt):
    assert memory.read_receipt(memory.write_receipt(receipt)) == receipt


def test_the_model():
    info = ModelInfo(
        name="n", fingerprint="f", vocab_size=1, hidden_size=2, num_layers=3, num_heads=4, num_parameters=5,
        max_prompt_tokens=6, max_adapt_tokens=7, max_stream_tokens=11, level_chunk_sizes=(8, 9), memory_bytes=10,
        dtype="d", device="cpu", deterministic=True,
    )  # fmt: skip
    assert score.read_model(score.write_model(info)) == info


def test_an_absent_scalar_is_its_default_and_a_zero_is_a_zero():
    message = inference_pb2.GenerateRequest(text="hi")
    assert generate.read_generate(message).sampling == SamplingParams()
    message.sampling.temperature = 0.0
    assert generate.read_generate(message).sampling.temperature == 0.0


def test_every_enum_has_a_number_for_every_member_and_none_of_its_own():
    for codec, wrapper in (
        (enums.ROLE, content_pb2.Role),
        (enums.ON_MISSING, inference_pb2.OnMissing),
        (enums.LEARN, inference_pb2.Learn),
        (enums.FINISH_REASON, inference_pb2.FinishReason),
        (enums.SESSION_OUTCOME, inference_pb2.SessionOutcome),
        (enums.ADAPT_MODE, adaptation_pb2.AdaptMode),
        (enums.DURABILITY, adaptation_pb2.Durability),
        (enums.VERSION_KIND, memory_pb2.VersionKind),
    ):
        assert codec.read(0, "field") is None
        for number in wrapper.values():
            assert codec.write(codec.read(number, "field")) == number
        with pytest.raises(InvalidRequest, match="99"):
            codec.read(99, "field")


def test_a_number_that_is_none_is_refused_before_it_is_sent():
    with pytest.raises(InvalidRequest, match="temperature"):
        SamplingParams(temperature=math.nan)
