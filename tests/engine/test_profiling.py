"""A step's parts are what kernels and spans say, and floors are bytes that are really there."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.spans import SPANS, spanned
from support.tiny_model import tiny_model

from hope_serve.engine.profiling import part_of_kernel, read_bandwidth, step_bytes
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("sum_kernel", "projections"),
        ("nvjet_sm90_hsh_96x64_64x10_1x2_h_bz_TNN", "projections"),
        ("void cutlass::Kernel2<cutlass_80_wmma>", "projections"),
        ("projected_decode_kernel", "deltas"),
        ("decode_kernel", "conv"),
        ("read_kernel", "read"),
        ("part_kernel", "read"),
        ("join_kernel", "read"),
        ("write_kernel", "commit"),
        ("project_kernel", "project"),
        ("commit_kernel", "commit"),
        ("mlp_commit_kernel", "commit"),
        ("residual_norm_kernel", "norms"),
        ("draw_kernel", "sampling"),
        ("void at::native::vectorized_elementwise_kernel<8, at::native", "other"),
    ],
)
def test_every_kernel_of_a_step_has_a_part(kernel, part):
    assert part_of_kernel(kernel) == part


def test_floors_count_weights_once_and_the_rest_for_every_sequence():
    model = tiny_model()
    served = ServedModel(model, device="cpu", precision=Precision.of(model.config, "cpu"))
    one, four = step_bytes(served, 1), step_bytes(served, 4)
    assert one["projections"] + one["project"] == sum(t.nbytes for t in served.weights())
    assert (four["projections"], four["project"]) == (one["projections"], one["project"])
    for name in ("read", "deltas", "norms", "conv", "sampling"):
        assert four[name] == 4 * one[name] > 0
    assert set(one) <= set(SPANS)
    assert one["read"] <= served.state_pool(1).layout.num_bytes


def test_weights_that_16_bits_hold_exactly_count_as_16_bits():
    model = tiny_model()
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    served = ServedModel(model, device="cpu", precision=Precision.of(model.config, "cpu"))
    whole = step_bytes(ServedModel(tiny_model(), device="cpu", precision=served.precision), 1)
    assert 2 * step_bytes(served, 1)["projections"] == whole["projections"]


def test_bandwidth_is_measured():

    assert read_bandwidth(torch.device("cpu"), 2**20) > 1e8


def test_a_span_has_a_known_name():
    with pytest.raises(ValueError, match="'dream'; it must be one of projections"):
        spanned("dream")
