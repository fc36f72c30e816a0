"""The model's own learning of whole documents, for comparison with what an engine makes of them."""

from __future__ import annotations

import torch

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState
from hope_serve.model.learn import accumulate, fire, level_rules, read_deltas, segment_gradient


def taught_directly(model, *documents):
    """What the levels read with, one segment at a time, rounded after each document as memories are."""
    config = model.config
    kept = getattr(torch, config.memory_dtype)
    cms = CmsState.fresh(model, 1)
    cadence = Cadence(chunk_sizes=tuple(config.levels[i].chunk_size for i in config.online_levels))
    for document in documents:
        rows, state, at = torch.tensor([document]), model.fresh_state(1), 0
        while at < len(document) - 1:
            length = min(len(document) - 1 - at, cadence.room())
            part = rows[:, at : at + length + 1]
            deltas = tuple(level.delta for level in cms.levels)
            segment = segment_gradient(model, part[:, :-1], part[:, 1:], state, deltas, consumed=at)
            cms, cadence = accumulate(cms, segment.gradients), cadence.after(length)
            cms = fire(level_rules(model), cms, cadence.fired())
            state, at = segment.state, at + length
        cms = cms.map(lambda t: t.detach().to(kept).float())
    return read_deltas(level_rules(model), cms, cadence)
