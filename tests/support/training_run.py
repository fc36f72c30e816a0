"""A training run small enough for a test: its tokenizer, its text, its TOML file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hope_serve.tokenizer import Tokenizer
from hope_serve.training.personas import PersonaFactory, Split

VOCAB_SIZE = 1024

RUN = """
output = "run"
device = "cpu"

[model]
name = "hope-small"
vocab_size = {vocab_size}
hidden_size = 32
num_layers = 1
dtype = "float32"

[model.titans]
num_heads = 2
chunk_size = 32

[[model.levels]]
hidden_size = 48
chunk_size = 32
rank = 4

[[model.levels]]
hidden_size = 48

[data]
tokenizer = "tokenizer.json"
train = ["train.txt"]
valid = ["valid.txt"]
workers = 0

[schedule]
seconds = 86400
steps = {steps}
optimizer = "{optimizer}"
learning_rate = 1e-2
warmup_steps = 2
text_share = 0.3
noise_from = 1.0
unknown_from = 0.5
log_every = 2
evaluate_every = {evaluate_every}
evaluate_episodes = 2

[batch]
text_rows = 2
text_tokens = 48
text_only_rows = 4
episode_tokens = 176
max_episodes = 1
"""


def people_text(count: int = 300) -> list[str]:
    """What people of the training split say, and what they are asked."""
    people = PersonaFactory(Split.TRAIN, seed=0, invented=0.35)
    texts = []
    for _ in range(count):
        facts = people.facts(8)
        texts += [people.monologue(facts), *(f"{fact.question}\n{fact.answer}" for fact in facts)]
    return texts


def write_run(
    folder: Path, tokenizer: Path, *, steps: int, evaluate_every: int = 1000, optimizer: str = "adamw"
) -> Path:
    """The TOML file, with tokenizer and text beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    passages = files("hope_serve.training").joinpath("unrelated.txt").read_text().split("\n\n")
    (folder / "train.txt").write_text("\n\x1e\n".join(passages[:-2]))
    (folder / "valid.txt").write_text("\n\x1e\n".join(passages[-2:] * 4))
    path = folder / "run.toml"
    vocab_size = Tokenizer.load(tokenizer).vocab_size
    settings = {"vocab_size": vocab_size, "steps": steps, "evaluate_every": evaluate_every, "optimizer": optimizer}
    path.write_text(RUN.format(**settings))
    return path
