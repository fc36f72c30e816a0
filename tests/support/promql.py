"""What a PromQL expression reads, by the parser that Prometheus's own grammar was ported to."""

from __future__ import annotations

import re
from pathlib import Path

import promql_parser
import yaml

from hope_serve.metrics import definitions

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
OTHERS = {"up", "hope_build_info", "hope_model_info"}
"""Metrics that are in no row of the table: Prometheus's own, and the two that only carry labels."""


def selectors(expression):
    """Every ``(metric, labels)`` that the expression reads. Raises ValueError for what is not PromQL."""
    return list(_walk(promql_parser.parse(expression)))


def unknown(expression):
    """What the expression names that no server exports and no rule records: a metric, a label, a label's value."""
    table = {definition.name: definition for definition in definitions()}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return [fault for name, labels in selectors(expression) if (fault := _fault(name, labels, table, recorded))]


def rules():
    """All rules of all groups."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def _fault(name, labels, table, recorded):
    if name in recorded | OTHERS:
        return None
    base = name if name in table else SUFFIXES.sub("", name)
    if base not in table:
        return f"there is no metric {name}"
    closed = table[base].labels
    for label, values in labels.items():
        if label in ("job", "instance", "le"):
            continue
        if label not in closed:
            return f"{name} has no label {label}"
        if strange := [value for value in values if value not in closed[label]]:
            return f"{name} is never recorded with {label} {', '.join(strange)}"
    return None


def _walk(node):
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, {m.name: m.value.split("|") for m in node.matchers.matchers}
        return
    for part in ("expr", "lhs", "rhs", "vector_selector"):
        if (child := getattr(node, part, None)) is not None:
            yield from _walk(child)
    for child in getattr(node, "args", None) or ():
        yield from _walk(child)
