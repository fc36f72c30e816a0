"""Small models of other makers, written the way their makers publish them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}


def small_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["my sister lives in a small town by the sea", "the sea the town the sister"], trainer
    )
    return tokenizer


def hugging_face(folder: Path, kind: str = "llama", *, shards: bool = False, **changes):
    """A folder as transformers saves it, and the model itself."""
    import transformers

    config_type, model_type = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }[kind]
    tokenizer = small_tokenizer()
    settings = SIZES | {"vocab_size": tokenizer.get_vocab_size() + 5, "tie_word_embeddings": False} | changes
    torch.manual_seed(0)
    config = config_type(**settings, eos_token_id=2, bos_token_id=1)
    model = model_type(config).float().eval()
    for name, tensor in model.named_parameters():
        with torch.no_grad():
            tensor.copy_(torch.randn_like(tensor) * (0.2 if tensor.dim() > 1 else 0.1) + ("norm" in name))
    model.save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
    tokenizer.save(str(folder / "tokenizer.json"))
    written = {"chat_template": TEMPLATE, "bos_token": SPECIAL[1], "eos_token": {"content": SPECIAL[2]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(written))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    return model


def rewrite_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not None}))


def gguf_of(model, path: Path, kind: str = "llama", *, quantised: bool = False, pre: str = "smollm") -> None:
    """The same model as a GGUF file, the way converters to it write one."""
    config, tokenizer = model.config, small_tokenizer()
    writer = GGUFWriter(path, kind)
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    _add_tokenizer(writer, tokenizer, config.vocab_size, pre)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = _woven(name, tensor.numpy(), config, kind)
        if quantised and array.ndim == 2 and array.shape[-1] % 32 == 0:
            writer.add_tensor(
                _gguf_name(name), quantize(array, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0
            )
        else:
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab_size: int, pre: str) -> None:
    raw = json.loads(tokenizer.to_str())
    tokens = sorted(raw["model"]["vocab"], key=raw["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*tokens, *(f"[PAD{i}]" for i in range(vocab_size - len(tokens)))])
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens] + [5] * (vocab_size - len(tokens)))
    writer.add_token_merges([" ".join(merge) for merge in raw["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _woven(name: str, array, config, kind: str):
    """Writers of architecture llama interleave the rotary halves of q and k."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    of = next((n for part, n in heads.items() if f"{part}.weight" in name), None)
    if kind != "llama" or of is None:
        return array
    return array.reshape(of, 2, array.shape[0] // of // 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)


def _gguf_name(name: str) -> str:
    table = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers.": "blk.",
    }
    for theirs, ours in table.items():
        name = name.replace(theirs, ours)
    return name
