"""What an engine computes before anybody waits covers every kind of work, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from support.attention_checkpoint import converted, write_part
from support.tiny_model import tiny_model

from hope_serve.api import AdaptOptions
from hope_serve.engine import segments as segments_room
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.lesson_graphs import LessonGraphs, PaddedRows, cut, padded
from hope_serve.engine.pools import Pools
from hope_serve.engine.practice import practise_lessons
from hope_serve.engine.runner import WARM_COUNTS, WARM_LENGTHS, Runner
from hope_serve.engine.segments import Moves, SegmentGradients, Segments
from hope_serve.engine.teaching import Teaching
from hope_serve.model.cadence import Cadence
from hope_serve.model.learn import read_deltas
from hope_serve.model.load import load_model
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision


@pytest.fixture(scope="module")
def attention(tmp_path_factory):
    folder = converted(tmp_path_factory.mktemp("base"))[0]
    return load_model(folder, write_part(folder.parent / "part.safetensors", folder)).model


def served(model):
    return ServedModel(model, device="cpu", precision=Precision.of(model.config, "cpu"))


@pytest.mark.parametrize("poison", [False, True])
def test_lessons_of_every_kind_are_practised_and_nothing_of_them_stays(monkeypatch, poison):
    segments, updates, rereads = [], [], []
    learn, update, reread = Segments.learn, segments_room.update_level, Teaching._reread
    monkeypatch.setattr(Segments, "learn", lambda s, rows: segments.append(rows.lengths) or learn(s, rows))
    monkeypatch.setattr(
        segments_room, "update_level", lambda *args: updates.append(bool(args[4].any())) or update(*args)
    )
    monkeypatch.setattr(Teaching, "_reread", lambda s, *args: rereads.append(len(args[0])) or reread(s, *args))
    teaching = Teaching(served(tiny_model()), 3, alone=False, poison=poison)
    slabs = [teaching._learned, teaching._state, teaching._reads]
    before, free = [slab.rows.clone() for slab in slabs], list(teaching._free)
    practise_lessons(teaching)
    assert [slab.rows.equal(was) for slab, was in zip(slabs, before, strict=True)] == [True] * 3
    assert teaching._free == free
    whole = teaching.cadence.room()
    assert {tuple(lengths) for lengths in segments} == {(n,) * count for count in (1, 2, 3) for n in (whole, 1)}
    assert set(updates) == {True, False} and set(rereads) == {1, 2, 3}


def test_lessons_of_attention_are_practised_too(attention):
    teaching = Teaching(served(attention), 2, alone=False)
    practise_lessons(teaching)
    assert not teaching._state.lengths.any() and not teaching._learned.rows.any()


@pytest.mark.parametrize("kind", ["titans", "attention"])
def test_prompts_of_every_kind_are_practised_in_nobodys_slot(monkeypatch, kind, attention):
    model, shapes = served(attention if kind == "attention" else tiny_model()), set()
    run = model.run
    monkeypatch.setattr(
        model, "run", lambda batch, *args: shapes.add((len(batch.slots), len(batch.tokens))) or run(batch, *args)
    )
    pools = Pools(model, 2)
    kept = (pools.delta_rows.rows, pools.last_token, pools.sampling.counts, pools.sampling.position)
    before, state = [t.clone() for t in kept], [pools.state.save(slot).clone() for slot in (1, 2)]
    Runner(model, pools, deterministic=False).warm_up()
    assert shapes == {(count, count * length) for count in WARM_COUNTS for length in WARM_LENGTHS}
    assert all(torch.equal(now[1:], was[1:]) for now, was in zip(kept, before, strict=True))
    assert all(torch.equal(pools.state.save(slot), was) for slot, was in zip((1, 2), state, strict=True))


def random_rows(teaching, lengths):
    """Segments of lessons in slots 1, 2, ... whose memories are random."""
    torch.manual_seed(3)
    lessons = []
    for slot, length in enumerate(lengths, 1):
        for view in teaching._learned.views.values():
            view[slot] = torch.randn(view[slot].shape) * 0.01
        lessons.append(Pupil(slot, torch.randint(5, 100, (length + 1,)).tolist()))
    return teaching._rows(lessons)


class Pupil:
    def __init__(self, slot, tokens):
        self.slot, self._tokens, self.options = slot, tokens, AdaptOptions(learning_rate_scale=0.5)

    def next_length(self):
        return len(self._tokens) - 1

    def segment(self, _):
        return self._tokens[:-1], self._tokens[1:]


def room_for(teaching, count, whole=16):
    return PaddedRows(count, whole, len(teaching._model.rules), torch.device("cpu"))


@pytest.mark.parametrize("lengths", [(16,), (1,), (16, 5, 9), (3, 16, 16, 16)])
def test_padding_behind_segments_changes_none_of_their_numbers(lengths):
    """What a captured graph computes, whatever the lengths, is what the segments have by themselves."""
    teaching, twin = (Teaching(served(tiny_model()), 4, alone=False) for _ in range(2))
    assert teaching.counts == [1, 2, 4]
    count = next(c for c in teaching.counts if c >= len(lengths))
    wanted = teaching._segments.learn(random_rows(teaching, lengths))
    room = room_for(twin, count)
    room.fill(random_rows(twin, [16] * count))  # what was there before
    room.fill(random_rows(twin, lengths))
    got = cut(twin._segments.learn(room.rows), len(lengths))
    torch.testing.assert_close(got.figures, wanted.figures, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.scales, wanted.scales)
    for ours, theirs in zip(got.gradients, wanted.gradients, strict=True):
        torch.testing.assert_close(ours.inner, theirs.inner, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.outer, theirs.outer, atol=1e-5, rtol=1e-4)
    for name, view in teaching._state.views.items():
        torch.testing.assert_close(twin._state.views[name], view, atol=1e-5, rtol=1e-4)


def test_figures_of_a_segment_are_its_gradients_norm_its_steps_and_its_loss():
    teaching = Teaching(served(tiny_model()), 4, alone=False)
    rows = random_rows(teaching, (16, 5))
    found = teaching._segments.learn(rows)
    sides = [[0.5 * side for side in pair] for pair in found.gradients]
    norm = sum(side.square().sum((1, 2, 3)) for pair in sides for side in pair).sqrt()
    rates = [rule.rates for rule in teaching._model.rules]
    steps = [
        (s * r).square().sum((1, 2, 3))
        for pair, both in zip(sides, rates, strict=True)
        for s, r in zip(pair, both, strict=True)
    ]
    torch.testing.assert_close(found.figures[:2], torch.stack([norm, sum(steps).sqrt()]))
    again = Teaching(served(tiny_model()), 4, alone=False)
    alone = [again._segments.learn(random_rows(again, (16,))).figures[2, 0]]
    torch.testing.assert_close(found.figures[2, :1], torch.stack(alone))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_padding_behind_what_moves_and_settles_changes_nobodys_memory(count):
    teaching, twin = (Teaching(served(tiny_model()), 4, alone=False) for _ in range(2))
    levels, lengths = len(teaching._model.rules), (9, 16, 4)[:count]
    moves = Moves(
        slots=torch.tensor([1, 0, 3][:count], dtype=torch.int32),
        shares=torch.tensor([1.0, 0.0, 0.25][:count]),
        due=torch.tensor([[True, False, False], [False, False, True]])[:levels, :count],
    )
    slots, is_open = torch.tensor([1, 2, 3][:count]), ~moves.due
    teaching._segments.move(teaching._segments.learn(random_rows(teaching, lengths)), moves)
    finite = teaching._segments.settle(slots, is_open)
    room = room_for(twin, 4)
    room.fill(random_rows(twin, lengths))
    wide = {name: padded(getattr(moves, name), 5) for name in ("slots", "shares", "due")}
    twin._segments.move(twin._segments.learn(room.rows), Moves(**wide))
    assert torch.equal(twin._segments.settle(padded(slots, 4), padded(is_open, 4))[:, :count], finite)
    assert finite.all() and finite.shape == (len(teaching.layout.parts), count)
    for mine, its in ((teaching._learned, twin._learned), (teaching._reads, twin._reads)):
        for name, view in mine.views.items():
            torch.testing.assert_close(its.views[name], view, atol=2e-5, rtol=1e-3)  # a step of 16 bit
    assert not twin._learned.rows[0].any() and not twin._reads.rows[0].any()


def test_what_a_lesson_leaves_reads_as_its_chunks_stand():
    teaching = Teaching(served(tiny_model()), 4, alone=False)
    random_rows(teaching, (4, 4))
    for view in teaching._learned.views.values():
        view[1:3] = view[1:3].half().float()
    is_open = torch.tensor([[True, False], [False, True]])
    teaching._segments.settle(torch.tensor([1, 2]), is_open)
    for at, slot in enumerate((1, 2)):
        one = teaching._cms.map(lambda t, slot=slot: t[slot : slot + 1])
        closed = [level.delta for level in one.levels]
        opened = read_deltas(teaching._model.rules, one, Cadence(chunk_sizes=(8, 8), tokens=1))
        for i, (a, b) in enumerate(zip(opened, closed, strict=True)):
            wanted = a if is_open[i, at] else b
            for side, tensor in zip(wanted._fields, wanted, strict=True):
                torch.testing.assert_close(teaching._reads.views[f"{i}.delta.{side}"][slot].float(), tensor[0].float())


@pytest.mark.parametrize("lengths", [(40,), (1,), (40, 3, 16)])
def test_padding_behind_segments_that_are_read_again_changes_none_of_their_losses(lengths):
    teaching, twin = (Teaching(served(tiny_model()), 4, alone=False) for _ in range(2))
    for one in (teaching, twin):
        torch.manual_seed(5)
        for view in one._reads.views.values():
            view[1:] = torch.randn(view[1:].shape) * 0.1
    wanted = teaching._segments.losses(random_rows(teaching, lengths))
    room = room_for(twin, 4, 48)
    room.fill(random_rows(twin, lengths))
    torch.testing.assert_close(twin._segments.losses(room.rows)[: len(lengths)], wanted)
    for name, view in teaching._state.views.items():
        torch.testing.assert_close(twin._state.views[name], view, atol=1e-5, rtol=1e-4)


class Again:
    """Stands for a captured graph where none can be captured: computes anew, into the same tensors."""

    def __init__(self, compute):
        self._compute, self.result = compute, compute()

    def replay(self):
        new = self._compute()
        if isinstance(new, SegmentGradients):
            self.result.figures.copy_(new.figures)
            for ours, pair in zip(self.result.gradients, new.gradients, strict=True):
                ours.inner.copy_(pair.inner)
                ours.outer.copy_(pair.outer)
        elif new is not None:
            self.result.copy_(new)
        return self.result


class NotCaptured(LessonGraphs):
    def _captured(self, compute):
        return Again(compute)


def lessons_to_their_end(teaching):
    """Lessons of three lengths and options, in company; what they ended with."""
    chance = torch.Generator().manual_seed(6)
    lessons = []
    for length, options in ((9, {}), (40, {"learning_rate_scale": 0.25}), (23, {"passes": 2, "max_update_norm": 0.01})):
        tokens = torch.randint(5, 100, (length + 1,), generator=chance).tolist()
        before = torch.zeros(teaching.layout.num_bytes, dtype=torch.uint8)
        asked = AdaptOptions(**options)
        lessons.append(Lesson(tokens=tuple(tokens), before=before, cadence=teaching.cadence, options=asked))
    for lesson in lessons:
        teaching.begin(lesson)
    while under_way := [lesson for lesson in lessons if not lesson.finished]:
        assert not teaching.step(under_way)
    return lessons


def test_lessons_by_graphs_end_as_those_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    teaching, twin = (Teaching(served(tiny_model()), 4, alone=False) for _ in range(2))
    whole = min(teaching._model.config.levels[i].chunk_size for i in teaching._model.config.online_levels)
    twin._passes = NotCaptured(twin._segments, max_lessons=4, whole=whole)
    assert twin._passes._moving and twin._passes._settling
    for wanted, got in zip(lessons_to_their_end(teaching), lessons_to_their_end(twin), strict=True):
        assert got.nll_first == pytest.approx(wanted.nll_first, rel=1e-4)
        assert got.nll_after == pytest.approx(wanted.nll_after, rel=1e-4)
        assert got.gradient_norms == pytest.approx(wanted.gradient_norms, rel=1e-3)
        assert got.clipped == wanted.clipped
        ours, theirs = teaching.layout.of_row(got.after), teaching.layout.of_row(wanted.after)
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, atol=2e-5, rtol=2e-3)
    assert not twin._learned.rows[0].any()
