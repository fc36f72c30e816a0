"""Memory parts on disk: whole, of one base, and refused by name otherwise."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.tiny_attention import SHAPE, tiny_weights

from hope_serve.model.parts import (
    CLOSING_FORMAT,
    FORMAT,
    MATRICES,
    START_SCALE,
    MemoryPart,
    PartError,
    expected_shapes,
    load_part,
    matrix_shapes,
    planned_part,
    save_part,
    with_start,
)

BASE = "ab" * 32


def make_part(**changes):
    generator = torch.Generator().manual_seed(0)
    sizes = expected_shapes(SHAPE, rank=4, start_rank=2)
    tensors = {name: torch.randn(size, generator=generator) for name, size in sizes.items()} | changes
    return MemoryPart(tensors=MappingProxyType(tensors), base=BASE, chunk_size=256)


@pytest.fixture
def saved(tmp_path):
    save_part(tmp_path / "part.safetensors", make_part(), {"step": "7"})
    return tmp_path / "part.safetensors"


def rewrite(path, *, metadata=None, **tensors):
    named = {name: t for name, t in (load_file(path) | tensors).items() if t is not None}
    meta = {"format": FORMAT, "base": BASE, "chunk_size": "256"} | (metadata or {})
    save_file(named, path, metadata=meta)


def test_a_part_comes_back_with_matrices_in_16_bit_and_vectors_exact(saved):
    part, again = make_part(), load_part(saved, SHAPE, base=BASE)
    assert (again.chunk_size, again.rank, again.closes_with_lesson) == (256, 4, False)
    for name, tensor in part.tensors.items():
        stored = tensor if tensor.dim() == 1 else tensor.half().float()
        assert torch.equal(again.tensors[name], stored), name


def test_a_part_says_whether_its_chunks_close_with_a_lesson_and_older_releases_refuse_one_that_does(tmp_path):
    path = tmp_path / "closes.safetensors"
    save_part(path, dataclasses.replace(make_part(), closes_with_lesson=True), {})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == CLOSING_FORMAT != FORMAT
    assert load_part(path, SHAPE, base=BASE).closes_with_lesson and planned_part(path).closes_with_lesson


def test_a_part_of_another_base_is_refused_with_both_names(saved):
    with pytest.raises(PartError, match=rf"belongs to the base {BASE}, and this base is {'cd' * 32}"):
        load_part(saved, SHAPE, base="cd" * 32)


def test_a_missing_an_unknown_a_misshapen_and_a_broken_tensor_are_named(saved, tmp_path):
    for changes, words in (
        ({"log_rate": None}, "lacks tensor log_rate"),
        ({"spare": torch.zeros(1)}, "unknown tensor spare"),
        ({"decay_logit": torch.zeros(2)}, r"decay_logit has shape \[2\]"),
        ({"log_rate": torch.full((3,), float("nan"))}, "log_rate holds NaN"),
        ({"projection": None}, "lacks a tensor projection"),
    ):
        save_part(saved, make_part(), {})
        rewrite(saved, **changes)
        with pytest.raises(PartError, match=words):
            load_part(saved, SHAPE, base=BASE)


def test_other_files_and_other_formats_are_refused(saved, tmp_path):
    rewrite(saved, metadata={"format": "other"})
    with pytest.raises(PartError, match="has format 'other'"):
        load_part(saved, SHAPE, base=BASE)
    rewrite(saved, metadata={"chunk_size": "0"})
    with pytest.raises(PartError, match="chunk_size '0'"):
        load_part(saved, SHAPE, base=BASE)
    saved.write_bytes(b"no part")
    with pytest.raises(PartError, match="is not a safetensors file"):
        load_part(saved, SHAPE, base=BASE)
    with pytest.raises(PartError, match="does not exist"):
        load_part(tmp_path / "none.safetensors", SHAPE, base=BASE)


def test_a_part_too_large_or_not_finite_is_never_written(tmp_path):
    wide = torch.zeros(3, 6_000_000, 1)
    with pytest.raises(PartError, match="at most 30,000,000: choose a smaller rank"):
        save_part(tmp_path / "part", make_part(projection=wide), {})
    with pytest.raises(PartError, match="projection holds a value that is not finite"):
        save_part(tmp_path / "part", make_part(projection=torch.full((3, 4, 40), 1e6)), {})
    assert not any(tmp_path.iterdir())


def test_the_start_moves_each_matrix_by_its_own_product():
    weights, part = tiny_weights(dtype=torch.float32), make_part()
    moved, old = with_start(weights, part.tensors).layers, weights.layers
    change = {n: START_SCALE * part.tensors[f"start.{n}.outer"] @ part.tensors[f"start.{n}.inner"] for n in MATRICES}
    heads, keys = matrix_shapes(SHAPE)["query"][0], matrix_shapes(SHAPE)["key"][0]
    query, key, value = (moved.query_key_value - old.query_key_value).split([heads, keys, keys], 1)
    gate, up = (moved.gate_up - old.gate_up).chunk(2, 1)
    found = {"query": query, "key": key, "value": value, "gate": gate, "up": up}
    found |= {"output": moved.output - old.output, "down": moved.down - old.down}
    for name, got in found.items():
        assert torch.allclose(got, change[name], atol=1e-5), name


def test_a_start_of_nothing_leaves_the_base_to_the_bit():
    zero = {name: torch.zeros_like(t) for name, t in make_part().tensors.items()}
    weights = tiny_weights(dtype=torch.float32)
    moved = with_start(weights, zero)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(moved.layers, weights.layers, strict=True))
