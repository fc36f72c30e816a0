"""Converted models: the source's logits, the source's words, and bad sources refused by name."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from support.other_makers import LLAMA3, TEMPLATE, gguf_of, hugging_face, rewrite_config, small_tokenizer
from tokenizers import Tokenizer

from hope_serve.convert.read import read_source
from hope_serve.convert.source import SourceError
from hope_serve.convert.write import convert
from hope_serve.model.attention_checkpoint import AttentionCheckpointError, load_attention_checkpoint
from hope_serve.model.attention_learn import place, read_hidden

CLOSE = 1e-4


def logits(checkpoint, ids):
    shape = checkpoint.config.shape()
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    here = place(shape, positions, torch.ones_like(ids), torch.float32)
    projection = torch.zeros(shape.num_layers, 1, shape.wide_size)
    hidden = read_hidden(shape, checkpoint.weights, ids, here, projection=projection, memory=None)
    return F.linear(hidden, checkpoint.weights.head)


def assert_same_logits(checkpoint, model, tolerance=CLOSE):
    ids = torch.randint(0, 250, (2, 90), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids).logits
    assert (logits(checkpoint, ids) - expected).abs().max() < tolerance


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "head_dim": 16}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
    ],
)
def test_a_folder_becomes_a_checkpoint_with_the_same_logits(tmp_path, kind, changes):
    model = hugging_face(tmp_path / "source", kind, **changes)
    convert(read_source(tmp_path / "source"), tmp_path / "made")
    assert_same_logits(load_attention_checkpoint(tmp_path / "made"), model)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_checkpoint_is_a_source_again_of_the_same_base(tmp_path, kind):
    hugging_face(tmp_path / "source", kind)
    convert(read_source(tmp_path / "source"), tmp_path / "made")
    again = read_source(tmp_path / "made")
    assert again.identity.fingerprint == read_source(tmp_path / "source").identity.fingerprint
    convert(again, tmp_path / "again")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("made", "again")]
    assert files[0] == files[1]


def test_shards_make_the_same_checkpoint_as_one_file(tmp_path):
    hugging_face(tmp_path / "one")
    hugging_face(tmp_path / "many", shards=True)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    for name in ("one", "many"):
        convert(read_source(tmp_path / name), tmp_path / f"{name} made")
    weights = [(tmp_path / f"{name} made" / "model.safetensors").read_bytes() for name in ("one", "many")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_becomes_a_checkpoint_with_the_same_logits(tmp_path, kind):
    model = hugging_face(tmp_path / "source", kind)
    gguf_of(model, tmp_path / "tiny.gguf", kind, pre="smollm" if kind == "llama" else "qwen2")
    convert(read_source(tmp_path / "tiny.gguf"), tmp_path / "made")
    assert_same_logits(load_attention_checkpoint(tmp_path / "made"), model)


def test_a_quantised_gguf_is_dequantised_whole(tmp_path):
    model = hugging_face(tmp_path / "source")
    gguf_of(model, tmp_path / "tiny.gguf", quantised=True)
    convert(read_source(tmp_path / "tiny.gguf"), tmp_path / "made")
    assert_same_logits(load_attention_checkpoint(tmp_path / "made"), model, tolerance=1.0)


def test_tokenizer_template_stop_tokens_and_context_come_from_the_source(tmp_path):
    model = hugging_face(tmp_path / "source")
    gguf_of(model, tmp_path / "tiny.gguf")
    for name in ("source", "tiny.gguf"):
        convert(read_source(tmp_path / name), tmp_path / f"{name} made")
        made = load_attention_checkpoint(tmp_path / f"{name} made")
        text = "My sister lives in 1984.<|im_end|>\n ünï"
        tokenizer = Tokenizer.from_file(str(made.tokenizer_path))
        assert tokenizer.encode(text).ids == small_tokenizer().encode(text).ids
        assert tokenizer.decode(tokenizer.encode("a town by the sea").ids) == "a town by the sea"
        assert (made.chat_template, made.config.stop_tokens) == (TEMPLATE, (2,))
        assert made.config.max_context_tokens == 128
        assert (made.config.bos_token, made.config.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_the_card_says_what_came_from_where_under_which_licence(tmp_path):
    hugging_face(tmp_path / "source")
    convert(read_source(tmp_path / "source"), tmp_path / "made")
    card = (tmp_path / "made" / "README.md").read_text()
    source = read_source(tmp_path / "source")
    assert "apache-2.0" in card
    assert source.identity.files["model.safetensors"] in card
    assert source.identity.fingerprint in card


def test_half_precision_is_kept_as_asked_and_vectors_in_full(tmp_path):
    hugging_face(tmp_path / "source")
    convert(read_source(tmp_path / "source"), tmp_path / "made", dtype="bfloat16")
    made = load_attention_checkpoint(tmp_path / "made")
    assert torch.equal(made.weights.layers.down, made.weights.layers.down.bfloat16().float())
    assert not torch.equal(made.weights.norm, made.weights.norm.bfloat16().float())


def test_an_altered_checkpoint_is_refused_by_name(tmp_path):
    hugging_face(tmp_path / "source")
    convert(read_source(tmp_path / "source"), tmp_path / "made")
    (tmp_path / "made" / "chat_template.jinja").write_text("other")
    with pytest.raises(AttentionCheckpointError, match=r"chat_template.jinja has sha256 .* altered"):
        load_attention_checkpoint(tmp_path / "made")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM.*known are LlamaForCausalLM, Qwen2ForCausalLM"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn' is not implemented"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope scaling lacks factor"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias true"),
        ({"intermediate_size": 57}, r"tensor 0.(gate|up|down) has shape"),
        ({"num_hidden_layers": 4}, "lacks tensor 3"),
        ({"num_hidden_layers": 2}, "unknown tensor 2"),
        ({"vocab_size": None}, "config.json lacks vocab_size"),
        ({"vocab_size": 280}, "tokenizer.json has an id .* 280 embeddings"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_a_folder_that_cannot_be_converted_is_refused_by_name(tmp_path, changes, words):
    hugging_face(tmp_path / "source")
    rewrite_config(tmp_path / "source", **changes)
    with pytest.raises(SourceError, match=words):
        convert(read_source(tmp_path / "source"), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_missing_shard_a_missing_tokenizer_and_a_cut_file_are_named(tmp_path):
    hugging_face(tmp_path / "source", shards=True)
    shard = sorted((tmp_path / "source").glob("model-*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(SourceError, match=f"lacks the shard {shard.name}"):
        read_source(tmp_path / "source")
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=f"{shard.name} is not a whole safetensors file"):
        read_source(tmp_path / "source")
    shard.write_bytes(whole)
    (tmp_path / "source" / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"has no tokenizer\.json"):
        read_source(tmp_path / "source")


def test_an_index_that_points_outside_the_folder_is_refused(tmp_path):
    hugging_face(tmp_path / "source", shards=True)
    index = tmp_path / "source" / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"] = dict.fromkeys(raw["weight_map"], "../elsewhere.safetensors")
    index.write_text(json.dumps(raw))
    shutil.copy(next((tmp_path / "source").glob("model-*.safetensors")), tmp_path / "elsewhere.safetensors")
    with pytest.raises(SourceError, match="lacks the shard"):
        read_source(tmp_path / "source")


@pytest.mark.parametrize(
    ("kind", "pre", "words"),
    [("mamba", "smollm", "architecture 'mamba'"), ("llama", "chatglm", "pre-tokenizer 'chatglm'; known are smollm")],
)
def test_a_gguf_that_cannot_be_converted_is_refused_by_name(tmp_path, kind, pre, words):
    gguf_of(hugging_face(tmp_path / "source"), tmp_path / "tiny.gguf", kind, pre=pre)
    with pytest.raises(SourceError, match=words):
        read_source(tmp_path / "tiny.gguf")


def test_a_cut_gguf_and_other_files_are_refused(tmp_path):
    gguf_of(hugging_face(tmp_path / "source"), tmp_path / "tiny.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:500])
    (tmp_path / "other.gguf").write_bytes(b"not a model at all")
    for name in ("cut.gguf", "other.gguf"):
        with pytest.raises(SourceError, match=f"{name} is not a whole GGUF file"):
            read_source(tmp_path / name)
    with pytest.raises(SourceError, match=r"neither a folder nor a \.gguf file"):
        read_source(tmp_path / "model.bin")


def test_a_small_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    hugging_face(tmp_path / "source")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(SourceError, match=r"0 MiB free; this checkpoint takes .* make room"):
        convert(read_source(tmp_path / "source"), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path):
    hugging_face(tmp_path / "source")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("keep")
    with pytest.raises(SourceError, match="is not an empty folder"):
        convert(read_source(tmp_path / "source"), tmp_path / "made")
