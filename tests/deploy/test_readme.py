"""What deploy/README.md promises is there: a section for every alert, metrics, commands, values, files."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from support.kubernetes import render
from support.promql import ROOT, rules, unknown

from hope_serve.cli.app import app
from hope_serve.config import Config
from hope_serve.memory.redis.acl import acl_rules

TEXT = (ROOT / "deploy" / "README.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL))
ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]
COMMANDS = re.findall(r"hope-serve ((?:memory |key |doctor|bench|serve)[^`\n]*)", TEXT)


def test_every_alert_has_a_section_and_every_section_an_alert():
    assert SECTIONS.keys() == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_section_says_where_to_look_and_what_to_do(alert):
    assert re.search(r"\*\*Look\*\*", SECTIONS[alert])
    assert re.search(r"\*\*[Dd]o\*\*", SECTIONS[alert])


def test_every_metric_it_names_exists():
    named = set(re.findall(r"`((?:job:)?hope_[a-z0-9_:]+)`", TEXT))
    assert len(named) >= 7
    assert [fault for name in named for fault in unknown(name)] == []


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_it_names_exists(words):
    command = typer.main.get_command(app)
    parts = shlex.split(words.replace("\\", ""))
    while parts and hasattr(command, "commands"):
        command = command.commands[parts.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {part for part in parts if part.startswith("--")} <= options


def test_every_setting_it_names_is_one_of_the_servers():
    named = set(re.findall(r"`(server|engine|memory)\.([a-z_]+)`", TEXT))
    assert len(named) >= 3
    for section, key in named:
        assert key in type(getattr(Config(), section)).__struct_fields__


def test_the_values_it_sets_are_the_charts(tmp_path):
    pairs = [pair.strip("`'").split("=", 1) for pair in re.findall(r"--set (\S+=\S+)", TEXT)]
    values = {}
    for path, value in pairs:
        holder = values
        *parents, last = [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", path)]
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = {"true": True}.get(value, value)
    kinds = {kind for kind, _ in render(values, tmp_path)}
    assert {"Deployment", "ScaledObject", "PrometheusRule"} <= kinds


def test_every_folder_of_its_map_is_there():
    named = re.findall(r"^    ([a-z]+[./]\S*) ", TEXT, re.MULTILINE)
    assert len(named) == 8
    assert [name for name in named if not (ROOT / "deploy" / name).exists()] == []


@pytest.mark.parametrize(("user", "installer"), [("hope", False), ("ADMIN", True)])
def test_the_rights_it_lists_are_those_that_the_store_needs(user, installer):
    [found] = re.findall(rf"ACL SETUSER {user} on '>PASSWORD'((?:.*\\\n)+.*)", TEXT)
    assert found.replace("\\\n", " ").split() == acl_rules(installer=installer)
