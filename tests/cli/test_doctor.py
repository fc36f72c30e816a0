"""``hope-serve doctor``: says what would be served, before anything is."""

from __future__ import annotations

import asyncio
import re
import shutil

import pytest
from support.attention_checkpoint import converted, write_part
from support.tiny_model import write_tiny_checkpoint

from hope_serve.cli.plan import memory_plan
from hope_serve.client import HopeClient
from hope_serve.config import EngineConfig
from hope_serve.memory.url import make_store
from hope_serve.model.checkpoint import CheckpointError, load_checkpoint
from hope_serve.model.config import TitansConfig
from hope_serve.model.load import load_model


@pytest.fixture
def doctor(hope, checkpoint_folder, tmp_path):
    def look(*options):
        given = ("--checkpoint", checkpoint_folder, "--memory", f"sqlite://{tmp_path}/memory.db")
        return hope("doctor", *given, *options)

    return look


def test_a_machine_that_can_serve_is_exit_code_0_and_left_as_it_is(doctor, tmp_path):
    said = doctor()
    assert said.code == 0, said.out
    for word in (
        "CPUs",
        "torch",
        "CUDA devices",
        "slots",
        "expect up to",
        "every sum, name, shape and value checked",
        "will be made",
    ):
        assert word in said.out
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_there_is_opened_and_its_trouble_told(doctor, tmp_path):
    asyncio.run(_made(f"sqlite://{tmp_path}/memory.db"))
    said = doctor()
    assert said.code == 0, said.out
    assert "memory.db opens" in said.out
    (tmp_path / "memory.db.key").unlink()
    said = doctor()
    assert said.code == 1
    assert "put the key file back" in said.out


async def _made(url):
    store = make_store(url)
    await store.open()
    await store.close()


def test_an_altered_checkpoint_is_bad(doctor, checkpoint_folder, tmp_path):
    altered = shutil.copytree(checkpoint_folder, tmp_path / "altered")
    data = bytearray((altered / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (altered / "model.safetensors").write_bytes(data)
    said = doctor("--checkpoint", altered)
    assert said.code == 1
    assert "bad" in said.out
    assert "model.safetensors has sha256" in said.out


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--checkpoint", "/nowhere", ("/nowhere has no config.json", "--checkpoint")),
        ("--memory", "redis://127.0.0.1:1", ("127.0.0.1:1",)),
        ("--memory", "ftp://x", ("'ftp://x' names no store",)),
        ("--memory", "sqlite:///", ("names no file",)),
        ("--memory", "sqlite:////dev/null/x.db", ("/dev/null", "is not a folder")),
    ],
)
def test_what_would_not_start_is_bad_and_named(doctor, option, value, words):
    said = doctor(option, value)
    assert said.code == 1
    for word in ("bad", *words):
        assert word in said.out


def test_a_plan_that_does_not_fit_is_bad(doctor, tmp_path):
    file = tmp_path / "hope.toml"
    file.write_text(f"[engine]\nmax_warm_bytes = {2**40}\n")
    said = doctor("--config", file)
    assert said.code == 1
    assert "1024.0 GiB more RAM" in said.out


def test_slots_and_lessons_that_do_not_fit_are_bad_and_the_keys_that_would_do_are_named(doctor, tmp_path):
    file = tmp_path / "hope.toml"
    file.write_text("[engine]\nmax_slots = 65536\nmax_lessons = 1024\n[model]\ndevice = 'cpu'\n")
    assert "lessons of" in doctor("--config", file).out  # of a tiny model even so many fit
    said = doctor("--config", file, "--checkpoint", _wide(tmp_path))
    assert said.code == 1
    most = int(re.search(r"set engine\.max_slots to at most (\d+)", said.out)[1])
    file.write_text(f"[engine]\nmax_slots = {most}\nmax_lessons = 1024\n[model]\ndevice = 'cpu'\n")
    assert "set engine" not in doctor("--config", file, "--checkpoint", _wide(tmp_path)).out


def _wide(home):
    """A checkpoint whose slots are large, so that not so many of them fit anywhere."""
    folder = home / "wide"
    if not folder.exists():
        write_tiny_checkpoint(folder, hidden_size=512, titans=TitansConfig(num_heads=1, chunk_size=64))
    return folder


def test_a_bad_configuration_is_wrong_use(doctor, tmp_path):
    file = tmp_path / "hope.toml"
    file.write_text("[engine]\nmax_slots = 0\n")
    said = doctor("--config", file)
    assert said.code == 2
    assert "engine.max_slots is 0" in said.err


def test_the_plan_is_what_a_loaded_model_weighs(checkpoint_folder):
    plan = memory_plan(checkpoint_folder)
    model = load_checkpoint(checkpoint_folder).model
    assert plan.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert plan.device.weights == sum(p.numel() * p.element_size() for p in model.parameters())


def test_the_plan_gives_the_bytes_that_the_server_reports(hope, target, checkpoint_folder):
    with HopeClient(target) as client:
        assert client.get_model().memory_bytes == memory_plan(checkpoint_folder).memory_bytes


@pytest.mark.timeout(600)
def test_the_plan_of_a_converted_model_counts_its_caches(hope, tmp_path):
    folder = converted(tmp_path)[0]
    write_part(folder / "memory.safetensors", folder)
    for asked, context in ((32, 32), (2048, 128)):
        plan = memory_plan(folder, engine=EngineConfig(max_context_tokens=asked))
        assert (
            plan.device.state == 2 * 3 * context * 2 * 8 * 4
        )  # keys and values: layers, tokens, heads, head size, fp32
        assert plan.context_tokens == context
    assert memory_plan(folder).num_parameters == load_model(folder).model.num_parameters
    said = hope("doctor", "--checkpoint", folder, "--memory", f"sqlite://{tmp_path}/memory.db")
    assert said.code == 0, said.out
    assert "a cache of 128 tokens each" in said.out and "the longest Adapt, 128 tokens" in said.out


def test_a_base_by_name_that_is_not_there_is_bad_and_not_fetched(hope, tmp_path, monkeypatch):
    monkeypatch.setenv("HOPE_CACHE", str(tmp_path))
    said = hope("doctor", "--checkpoint", "hope-smollm2", "--memory", f"sqlite://{tmp_path}/memory.db")
    assert said.code == 1
    assert "hope-serve fetch hope-smollm2" in said.out and list(tmp_path.iterdir()) == []


def test_a_folder_without_a_config_has_no_plan(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        memory_plan(tmp_path)
