"""The store's core in a simulated world: thousands of storms, every one of which can be had again by its seed."""

import logging
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest
from support.redis_sim import load_functions
from support.store_sim import FAULTS, World, run_seed, run_seeds
from support.store_sim_bugs import BUGS, BUGS_OF_SCRIBES
from support.store_sim_scribes import STEPS, ScribesWorld, run_scribes

SMALL, FULL = 100, 10_000
SEARCHED = 300
"""Seeds among which every planted bug shows."""
RARE = 223
"""Where the rarest of them does, one in hundreds: this seed is tried first."""
BATCH = 50
PROCESSES = 2


def test_no_storm_breaks_a_rule():
    assert run_seeds(range(SMALL)) == []


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_ten_thousand_storms_break_no_rule():
    batches = [range(first, first + BATCH) for first in range(0, FULL, BATCH)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn, initializer=logging.disable) as processes:
        broken = [text for found in processes.map(run_seeds, batches) for text in found]
    assert broken == []


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant, monkeypatch):
    options = {"functions": load_functions()} | plant(monkeypatch)
    found = (text for seed in (RARE, *range(SEARCHED)) for text in run_seed(seed, **options))
    assert any(text.startswith(BUGS[plant]) for text in found), f"not found in {SEARCHED} seeds"


def test_no_storm_breaks_an_erasure_a_rollback_or_an_expiry():
    functions, steps = load_functions(), Counter()
    for seed in range(SMALL):
        world = ScribesWorld(seed, functions=functions)
        assert world.run() == [], f"seed {seed}"
        steps.update(step for scribe in world.scribes for step in scribe.done)
    assert min(steps[step] for step in STEPS) > SMALL / 3, steps


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_ten_thousand_storms_break_no_erasure_rollback_or_expiry():
    functions = load_functions()
    assert [text for seed in range(FULL) for text in run_scribes(seed, functions=functions)] == []


@pytest.mark.parametrize("plant", BUGS_OF_SCRIBES, ids=lambda plant: plant.__name__)
def test_a_planted_bug_of_erasing_is_found(plant, monkeypatch):
    options = {"functions": load_functions()} | plant(monkeypatch)
    found = (text for seed in range(SEARCHED) for text in run_scribes(seed, **options))
    assert any(text.startswith(BUGS_OF_SCRIBES[plant]) for text in found), f"not found in {SEARCHED} seeds"


@pytest.mark.parametrize("seed", [7, 10, 14])
def test_a_seed_leads_to_the_same_history_every_time(seed):
    functions = load_functions()
    first, second = (World(seed, functions=functions) for _ in range(2))
    assert first.run() == second.run()
    assert first.history.acknowledged
    assert first.history == second.history


def test_the_storms_do_what_they_are_for():
    """A simulation in fair weather would prove nothing."""
    functions = load_functions()
    worlds = [World(seed, functions=functions) for seed in range(40)]
    for world in worlds:
        world.run()
    assert {fault for world in worlds for fault in world.faults} == set(FAULTS)
    assert any(world.history.versions_can_be_lost for world in worlds)
    assert sum(len(world.history.acknowledged) for world in worlds) > 300
