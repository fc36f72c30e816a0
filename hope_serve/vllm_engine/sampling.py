"""How tokens are chosen, in vLLM's words, and what it says of them in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hope_serve.api import TokenLogprob
from hope_serve.engine.sequence import Sequence
from hope_serve.vllm_plugin.handover import Handover, params

LARGEST_SEED = 2**63 - 1


def drawing(sequence: Sequence, handover: Handover) -> Any:
    """vLLM's parameters of a sequence that draws. It knows no text, so ids alone end it there."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    asked = sequence.sampling
    return SamplingParams(
        temperature=0.0 if asked.is_greedy else asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        max_tokens=asked.max_tokens,
        min_tokens=asked.min_tokens,
        seed=None if asked.seed is None or asked.is_greedy else sequence.draw_key & LARGEST_SEED,
        stop_token_ids=sorted(sequence.end_ids),
        ignore_eos=True,  # the text's end is among the ids
        logit_bias=dict(asked.logit_bias) or None,
        logprobs=asked.logprobs,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=params(handover),
        skip_clone=True,  # they are this request's alone
    )


def weighing(handover: Handover) -> Any:
    """vLLM's parameters of a sequence whose own tokens are weighed."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=params(handover),
        skip_clone=True,  # they are this request's alone
    )


def drawn(sequence: Sequence, completion: Any) -> list[TokenLogprob]:
    """The tokens of one delta; likelihoods where they were asked for."""
    if completion.logprobs is None:
        return [TokenLogprob(token=token, logprob=0.0) for token in completion.token_ids]
    wanted = sequence.sampling.logprobs or 0
    return [
        TokenLogprob(token=token, logprob=found[token].logprob, top=_best(found, wanted))
        for token, found in zip(completion.token_ids, completion.logprobs, strict=True)
    ]


def weighed(sequence: Sequence, prompt_logprobs: list[Mapping[int, Any] | None]) -> None:
    """Note the likelihoods of a sequence's targets, the first of which has one token before it.

    Raises:
        FloatingPointError: the logits were not numbers.
    """
    for target, found in list(zip(sequence.targets, prompt_logprobs[1:], strict=True))[sequence.score_from :]:
        assert found is not None
        entry = found[target]
        if entry.logprob != entry.logprob:
            raise FloatingPointError("the model's logits are not numbers")
        sequence.token_logprobs.append(entry.logprob)
        sequence.greedy_hits.append(entry.rank == 1)


def _best(found: Mapping[int, Any], count: int) -> tuple[tuple[int, float], ...]:
    ranked = sorted(found.items(), key=lambda item: (-item[1].logprob, item[0]))
    return tuple((token, entry.logprob) for token, entry in ranked[:count])
