"""The published tables of failures and threats name tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = ("hope_serve/memory/FAILURES.md", "SECURITY.md")
ROWS = [
    line
    for table in TABLES
    for line in (ROOT / table).read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| fault", "| threat"))
]


@pytest.fixture(scope="module")
def known():
    files = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in files for name in re.findall(r"def (test_\w+)", text)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_of_the_tables_is_shown_by_tests(row, known):
    named = re.findall(r"`(test_\w+)`", row)
    assert named
    assert set(named) <= known
