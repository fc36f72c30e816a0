"""The gated delta net: its chunk form is the recurrence, and nothing looks ahead."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hope_serve.training.mad.gated_delta import GatedDeltaNet, gated_delta

B, H, T, D = 2, 2, 13, 4


def test_a_sequence_as_one_chunk_is_the_recurrence_token_by_token():
    torch.manual_seed(0)
    q, k = (F.normalize(torch.randn(B, H, T, D, dtype=torch.float64), dim=-1) for _ in range(2))
    v = torch.randn(B, H, T, D, dtype=torch.float64)
    log_a, b = F.logsigmoid(torch.randn(B, H, T, dtype=torch.float64)), torch.rand(B, H, T, dtype=torch.float64)
    state, outs = torch.zeros(B, H, D, D, dtype=torch.float64), []
    for t in range(T):
        key, value, write = k[:, :, t, :, None], v[:, :, t, :, None], b[:, :, t, None, None]
        state = log_a[:, :, t, None, None].exp() * (state - write * (state @ key) @ key.mT) + write * value @ key.mT
        outs.append((state @ q[:, :, t, :, None])[..., 0])
    assert torch.allclose(gated_delta(q, k, v, log_a, b), torch.stack(outs, 2), atol=1e-12)


def test_nothing_looks_ahead():
    torch.manual_seed(0)
    model = GatedDeltaNet(vocab_size=11, width=16, wide=8, num_layers=2, num_heads=2)
    rows = torch.randint(11, (1, 9))
    other = rows.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 11
    assert torch.allclose(model.hidden(rows)[:, :6], model.hidden(other)[:, :6], atol=1e-6)
    assert not torch.allclose(model.hidden(rows)[:, 6:], model.hidden(other)[:, 6:], atol=1e-3)
