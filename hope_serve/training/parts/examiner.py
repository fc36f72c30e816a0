"""Cases put to a part: memories taught, questions asked in fresh contexts, and what share of the answers is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_serve.training.lessons.cases import Case
from hope_serve.training.lessons.judge import Judge, holds_value
from hope_serve.training.lessons.lesson import Question
from hope_serve.training.parts.buckets import CHUNK_TOKENS
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.packing import Bucket, tell_row, told_tensors
from hope_serve.training.parts.speak import replies
from hope_serve.training.parts.speech import Speech


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Teaches memories and asks them, in a fresh context, by the base's own chat template."""

    learner: Learner
    speech: Speech

    def share(self, cases: Sequence[Case], judge: Judge) -> float:
        """The share of all cases' questions whose greedy answer the judge finds right."""
        prompts, owners, asked = [], [], []
        for owner, case in enumerate(cases):
            for question in case.asked:
                prompts.append(self.speech.prompt(question.prompt))
                owners.append(owner)
                asked.append(question)
        said = replies(self.learner, prompts, self.memories(cases), owners=owners, end=self.speech.end)
        return self._judged(asked, said, judge)

    def share_in_prompt(
        self, plain: Learner, cases: Sequence[Case], told: Sequence[str], judge: Judge = holds_value
    ) -> float:
        """The source itself, with what was told before the question."""
        asked = [question for case in cases for question in case.asked]
        pairs = zip(told, asked, strict=True)
        prompts = [self.speech.prompt(text + question.prompt) for text, question in pairs]
        return self._judged(asked, replies(plain, prompts, None, end=self.speech.end), judge)

    def _judged(self, asked: Sequence[Question], said: Sequence[list[int]], judge: Judge) -> float:
        right = [judge(q, self.speech.tokenizer.decode(ids)) for q, ids in zip(asked, said, strict=True)]
        return sum(right) / max(1, len(right))

    def memories(self, cases: Sequence[Case]) -> Tensor:
        """B of every case, a few cases at a time."""
        return torch.cat([self._some_memories(cases[at : at + 16]) for at in range(0, len(cases), 16)])

    def _some_memories(self, cases: Sequence[Case]) -> Tensor:
        told = [[self.speech.told(adapt) for adapt in case.adapts] for case in cases]
        chunks = max(sum(-(-(len(ids) - 1) // CHUNK_TOKENS) for ids in one) for one in told)
        longest = max(len(ids) for one in told for ids in one)
        bucket = Bucket(
            name="cases",
            users=len(cases),
            chunks=chunks,
            chunk_tokens=CHUNK_TOKENS,
            fact_chunks=chunks,
            learned_chunks=chunks,
            ask_tokens=0,
            other_tokens=0,
            facts=(0, 0),
            past_chunks=1 + longest // CHUNK_TOKENS,
        )
        tensors = told_tensors([tell_row(one, noise=(), bucket=bucket) for one in told], bucket)
        device = self.learner.weights.embedding.device
        tensors = type(tensors)(*(t.to(device) for t in tensors))
        return self.learner.teach(tensors, (tensors.mask > 0).any(-1), bucket)
