"""A checkpoint is checked down to its last byte before it is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_model import tiny_model, tokenizer_bytes, write_tiny_checkpoint

from hope_serve.model import checkpoint as files
from hope_serve.model.checkpoint import CheckpointError, load_checkpoint, planned_config, save_checkpoint


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
        ({"num_layers": 3}, "model.safetensors: has tensors for 2 of them.* num_layers is 3"),
        ({"num_layers": 10_000_000}, "num_layers is 10000000; it must be at most 1024"),
        ({"num_layers": 1024}, "num_layers is 1024"),
        ({"num_layers": 10**30}, "num_layers"),
        ({"num_layers": True}, "num_layers"),
        ({"num_layers": -1}, "num_layers is -1; it must be at least 1"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000; it must be at most 16777216"),
        ({"vocab_size": 2**24}, r"tensor embedding has shape .* makes it \[16777216, 32\]"),
        ({"hidden_size": 2**24}, r"tensor embedding .* makes it \[382, 16777216\]"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000; it must be at most"),
        ({"levels": []}, r"levels \(count\) is 0; it must be at least 1"),
        ({"levels": [{"hidden_size": 48}] * 65}, r"levels \(count\) is 65; it must be at most 64"),
        ({"levels": [{"hidden_size": 48}] * 64}, "has tensors for 3 of them.* number of levels is 64"),
        ({"levels": [{"hidden_size": 2**24}] * 3}, "tensor"),
        ({"levels": [{"hidden_size": 10**12}] * 3}, "levels.hidden_size is 1000000000000; it must be at most"),
        (
            {"levels": [{"hidden_size": 48, "chunk_size": 10**12, "rank": 1}] * 3},
            "levels.chunk_size is 10{12}; it must",
        ),
        ({"levels": [{"hidden_size": 48, "chunk_size": 16, "rank": 10**12}] * 3}, "levels.rank is 10{12}; it must be"),
        ({"levels": [{"hidden_size": 48, "chunk_size": 16, "rank": 2**24}] * 3}, "tensor"),
        ({"levels": {"hidden_size": 48}}, "levels"),
        ({"titans": {"num_heads": 10**12}}, "titans.num_heads is 1000000000000; it must be at most"),
        ({"titans": {"num_heads": 32}}, "tensor blocks.0.titans"),
        (
            {"titans": {"num_heads": 2, "chunk_size": 10**9}},
            "titans.chunk_size is 1000000000; it must be at most 65536",
        ),
        ({"titans": {"num_heads": 2, "memory_chunk_size": 10**9}}, "titans.memory_chunk_size is 1000000000"),
        (
            {"titans": {"num_heads": 2, "memory": "mlp", "mlp_hidden_size": 10**9}},
            "titans.mlp_hidden_size is 1000000000",
        ),
        ({"titans": {"num_heads": 2, "memory": "mlp", "mlp_hidden_size": 2**24}}, "tensor"),
        ({"titans": None}, "titans"),
        ({"norm_eps": -1e-6}, r"norm_eps is -1e-06; it must lie in \(0, 1\]"),
        ({"norm_eps": float("nan")}, "config.json"),
        ({"name": ""}, r"name \(characters\) is 0"),
        ({"name": "x" * 129}, r"name \(characters\) is 129; it must be at most 128"),
        ({"name": "a\nb"}, "name is 'a.nb'; use printable"),
        ({"name": "x" * 2**20}, "config.json is larger than 1048576 bytes"),
    ],
)
def test_config_that_is_not_allowed_is_refused_by_field(folder, changes, message):
    with_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"[" * 10_000, b'{"x":' + b"[" * 10_000, b"", b"\xff\xfe", b"null"])
def test_a_config_that_is_no_config_is_refused_by_file(folder, content):
    (folder / files.CONFIG).write_bytes(content)
    resum(folder)
    with pytest.raises(CheckpointError, match=r"^config\.json: "):
        load_checkpoint(folder)


def test_the_header_is_compared_before_a_model_of_the_configs_size_is_built(folder, monkeypatch):
    built = []
    monkeypatch.setattr("hope_serve.model.weights.HopeModel", built.append)
    with_config(folder, num_layers=1024)
    for read in (load_checkpoint, planned_config):
        with pytest.raises(CheckpointError, match="num_layers is 1024"):
            read(folder)
    assert not built


@pytest.mark.parametrize(
    ("header", "length"),
    [(b"{}", 2**63), (b"{}", 2**40), (b"{}", 3), (b"{" * 10, 10), (b"", 0), (b" " * 10, 10), (b"[1]", 3)],
)
def test_weights_with_a_header_that_is_none_are_refused(folder, header, length):
    (folder / files.WEIGHTS).write_bytes(length.to_bytes(8, "little") + header)
    resum(folder)
    for read in (load_checkpoint, planned_config):
        with pytest.raises(CheckpointError, match=r"^model\.safetensors: this is not a safetensors file"):
            read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "hello\n", "line 1 is 'hello', no sum and name, as sha256sum writes them"),
        (lambda text: text.replace("  ", " "), "line 1 is .* no sum and name"),
        (lambda text: text.upper(), "line 1 is .* no sum and name"),
        (lambda text: text + text, "line 4 is .* a second sum of config.json"),
        (lambda text: "\0" * 100, "line 1 is"),
        (lambda text: "", "config.json has sha256 .* says nothing"),
        (lambda text: "x" * 2**21, "SHA256SUMS is larger than 1048576 bytes"),
    ],
)
def test_sums_that_are_none_are_refused_by_line(folder, change, message):
    sums = folder / files.SUMS
    sums.write_text(change(sums.read_text()))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_sums_written_in_binary_mode_or_on_windows_are_read(folder):
    before = load_checkpoint(folder).fingerprint
    sums = folder / files.SUMS
    sums.write_bytes(sums.read_bytes().replace(b"  ", b" *").replace(b"\n", b"\r\n"))
    assert load_checkpoint(folder).fingerprint == before


def with_tokenizer(folder, change):
    tree = json.loads((folder / files.TOKENIZER).read_text())
    change(tree)
    (folder / files.TOKENIZER).write_text(json.dumps(tree))
    resum(folder)


def add_token(tree):
    tree["model"]["vocab"]["zqx"] = len(tree["model"]["vocab"])


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(folder):
    with_tokenizer(folder, add_token)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has ids up to (\d+), and vocab_size .* is \1: "):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"hello", b"\xff", b"{" * 1000])
def test_a_tokenizer_that_is_none_is_refused_by_file(folder, content):
    (folder / files.TOKENIZER).write_bytes(content)
    resum(folder)
    with pytest.raises(CheckpointError, match=r"^tokenizer\.json: this is no tokenizer file"):
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
