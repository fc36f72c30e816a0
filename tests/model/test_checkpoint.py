"""A checkpoint is checked down to its last byte before it is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_model import tiny_model, tokenizer_bytes, write_tiny_checkpoint

from hope_serve.model import checkpoint as files
from hope_serve.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "tiny")


def resum(folder):
    """Make the sums agree with the files again, so that the deeper checks are reached."""
    sums = {name: files._sha256(folder / name) for name in (files.CONFIG, files.WEIGHTS, files.TOKENIZER)}
    (folder / files.SUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))


def with_tensors(folder, change):
    tensors = load_file(folder / files.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / files.WEIGHTS)
    resum(folder)


def with_config(folder, **changes):
    config = json.loads((folder / files.CONFIG).read_text())
    (folder / files.CONFIG).write_text(json.dumps(config | changes))
    resum(folder)


def test_what_was_saved_comes_back_bit_for_bit(folder):
    loaded = load_checkpoint(folder)
    again = load_checkpoint(folder)
    assert loaded.fingerprint == again.fingerprint
    for name, tensor in load_file(folder / files.WEIGHTS).items():
        assert torch.equal(loaded.model.state_dict()[name], tensor.float())
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_other_weights_have_another_fingerprint(folder, tmp_path):
    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    assert load_checkpoint(folder).fingerprint != load_checkpoint(other).fingerprint


@pytest.mark.parametrize("name", [files.CONFIG, files.WEIGHTS, files.TOKENIZER])
def test_one_changed_byte_is_refused_naming_the_file(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"^{name} has sha256 .* fetch the checkpoint again"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", [files.CONFIG, files.WEIGHTS, files.TOKENIZER, files.SUMS])
def test_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.scale"), "lacks tensor norm.scale"),
        (lambda t: t.update(extra=torch.zeros(1)), "has the unknown tensor extra"),
        (lambda t: t.update({"norm.scale": torch.ones(31)}), r"tensor norm.scale has shape \[31\].* makes it \[32\]"),
        (lambda t: t.update({"norm.scale": torch.ones(32).half()}), "tensor norm.scale has dtype F16.* makes it F32"),
        (lambda t: t["blocks.0.titans.key"].view(-1)[3:4].fill_(torch.nan), "blocks.0.titans.key holds NaN"),
        (lambda t: t["embedding"].view(-1)[0:1].fill_(torch.inf), "embedding holds NaN or infinity"),
    ],
)
def test_tensor_that_contradicts_the_config_is_refused_by_name(folder, change, message):
    with_tensors(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"hidden_size": "many"}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"schema": 99}, "schema is 99; this release reads 1"),
        ({"num_layers": 3}, "lacks tensor blocks.2"),
    ],
)
def test_config_that_is_not_allowed_is_refused_by_field(folder, changes, message):
    with_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_pickle_in_place_of_weights_is_refused(folder):
    torch.save({"embedding": torch.zeros(2)}, folder / files.WEIGHTS)
    resum(folder)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_checkpoint(folder)


def test_half_precision_weights_load_as_float32(tmp_path):
    model = tiny_model(dtype=torch.float32)
    fingerprint = save_checkpoint(tmp_path / "half", model, tokenizer=tokenizer_bytes(), card="")
    loaded = load_checkpoint(tmp_path / "half")
    assert loaded.fingerprint == fingerprint
    assert all(p.dtype is torch.float32 for p in loaded.model.parameters())
