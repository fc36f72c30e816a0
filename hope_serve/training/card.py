"""The model card of a trained checkpoint."""

from __future__ import annotations

from hope_serve.training.config import TrainConfig


def model_card(config: TrainConfig, steps: int, scores: dict[str, float]) -> str:
    """Markdown: what the model is, what it was trained on, what it scored."""
    model, titans = config.model, config.model.titans
    levels = "\n".join(
        f"- level {i}: hidden {level.hidden_size}, "
        + (f"learns every {level.chunk_size} tokens, {level.delta} rank {level.rank}" if level.online else "frozen")
        for i, level in enumerate(model.levels)
    )
    table = "\n".join(f"| {name} | {value:.4f} |" for name, value in sorted(scores.items()))
    files = ", ".join(path.name for path in config.data.train)
    return f"""# {model.name}

A HOPE model (self-modifying Titans and a Continuum Memory System) meta-trained to learn facts at test time.

- hidden {model.hidden_size}, {model.num_layers} layers, {model.titans.num_heads} heads, vocabulary {model.vocab_size}
- Titans: {titans.memory} memories, {titans.read} read, {titans.retention} retention, chunk {titans.chunk_size}
{levels}

Trained for {steps} steps on {files} and on generated episodes about invented people.
Where the text comes from, and under which licences: hope_serve/training/README.md; none of it is included.

| held-out score | value |
|---|---|
{table}

Recall is of the generator's own wording. It says nothing of people's own words, or of how often an answer is invented
where nothing was told.
"""
