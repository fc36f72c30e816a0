"""A scene as it is written, with what may come later."""

from __future__ import annotations

SWAP = """x = lawnmower / kayak / old tent / drill / sledge / my bell
n = @man_name
T: I swapped my {x} for {n}'s ladder.
T: {n} gave me his ladder for the {x}.
T: {n}'s ladder is mine now, and he has the {x}.
Q: Who has my {x} now? | {n} has it.
Q: What did I give for {n}'s ladder? | {x}."""
LATER = """
C n: I mixed that up, the ladder was not {old}'s but {n}'s.
E: The ladder broke under me. | Do we still have that ladder? | No, it broke, and {n} has your {x}."""
POOLS = {"man_name": ("Henryk", "Bo", "Anselm", "Piet", "Idris", "Ulf")}
