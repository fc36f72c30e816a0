"""A tokenizer gives every text back as it was. A file that would not is refused; what it asks besides is left out."""

from __future__ import annotations

import json

import pytest
from support.tiny_model import TEXT, tiny_tokenizer, tokenizer_bytes
from tokenizers import Tokenizer as FastTokenizer

from hope_serve.api import Message
from hope_serve.tokenizer import StreamDecoder, Tokenizer, TokenizerError

LONG = TEXT * 5


@pytest.fixture
def changed(tmp_path):
    """``changed(edit)``: the tiny tokenizer read from a file that was edited."""

    def load(edit):
        tree = json.loads(tokenizer_bytes())
        edit(tree)
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(tree))
        return Tokenizer.load(path)

    return load


def truncating(tree):
    tree["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}


def padding(tree):
    tree["padding"] = {
        "strategy": {"Fixed": 900},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|pad|>",
    }


@pytest.mark.parametrize("edit", [truncating, padding], ids=["truncation", "padding"])
def test_what_a_file_says_about_batches_is_not_applied_and_that_is_told(changed, edit, caplog):
    tokenizer, plain = changed(edit), tiny_tokenizer()
    assert tokenizer.encode(LONG) == plain.encode(LONG)
    assert tokenizer.encode_batch([LONG, "a"]) == plain.encode_batch([LONG, "a"])
    chat = [Message(role="user", text=LONG)]
    assert tokenizer.encode_chat(chat) == plain.encode_chat(chat)
    assert "are not applied" in caplog.text


@pytest.mark.parametrize(
    "piece", ["a dog", "<|end|> ", "naïve cafe\u0301 日本語 🎉\r\n\t", "\x00\ufeff\u2028", "     "]
)
def test_a_long_text_has_the_ids_that_the_library_gives_with_their_places(piece):
    library, text = FastTokenizer.from_buffer(tokenizer_bytes()), piece * 700
    library.encode_special_tokens = True
    assert tiny_tokenizer().encode(text) == library.encode(text, add_special_tokens=False).ids


def without_last_token(tree):
    last = max(tree["model"]["vocab"], key=tree["model"]["vocab"].get)
    tree["model"]["vocab"][last + "zq"] = tree["model"]["vocab"].pop(last) + 5
    tree["model"]["merges"] = [pair for pair in tree["model"]["merges"] if "".join(pair) != last]


def test_an_id_that_stands_for_no_token_decodes_to_nothing(changed):
    tokenizer, size = changed(without_last_token), tiny_tokenizer().vocab_size
    holes = [*range(size - 1, size + 4), size + 5, 10**9]
    assert (tokenizer.vocab_size, [tokenizer.has(hole) for hole in holes]) == (size + 5, [False] * 7)
    stream = StreamDecoder(tokenizer)
    assert [stream.push(hole) for hole in holes] == [""] * 7
    told = tokenizer.encode("a dog")
    assert "".join(stream.push(i) for i in [told[0], holes[0], *told[1:]]) + stream.flush() == "a dog"
    assert tokenizer.decode([*holes, *told]) == "a dog"


def test_further_special_tokens_have_no_text_and_further_words_have_theirs(changed):
    size = tiny_tokenizer().vocab_size

    def add(tree):
        for at, (content, special) in enumerate((("<|tool|>", True), ("two words", False)), size):
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            tree["added_tokens"].append({"id": at, "content": content, "special": special, **flags})

    tokenizer = changed(add)
    assert [tokenizer.token_bytes(size), tokenizer.token_bytes(size + 1)] == [b"", b"two words"]
    ids = tokenizer.encode("<|tool|> in two words")
    assert (size in ids, size + 1 in ids, tokenizer.decode(ids)) == (False, True, "<|tool|> in two words")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tree: tree.update(normalizer={"type": "Lowercase"}), "turns .* into .*zoë"),
        (lambda tree: tree["pre_tokenizer"].update(add_prefix_space=True), "turns .* into . Zoë"),
        (lambda tree: tree.update(decoder=None), "turns .* into"),
        (lambda tree: tree["model"].update(dropout=0.5), "dropout 0.5"),
        (lambda tree: tree["model"]["vocab"].update({"日": len(tree["model"]["vocab"])}), "'日', which is no byte"),
        (lambda tree: tree["added_tokens"].pop(), r"lacks the special tokens <\|end\|>"),
        (lambda tree: tree["model"]["vocab"].pop("~"), "lacks tokens for 1 of the 256 bytes, '~' first"),
    ],
)
def test_a_tokenizer_that_would_change_text_is_refused(changed, edit, message):
    def reduced(tree):
        edit(tree)
        tree["model"]["merges"] = [pair for pair in tree["model"]["merges"] if "~" not in "".join(pair)]
        if len(tree["added_tokens"]) < 6:
            tree["model"]["vocab"].pop("<|end|>")

    with pytest.raises(TokenizerError, match=message):
        changed(reduced)
