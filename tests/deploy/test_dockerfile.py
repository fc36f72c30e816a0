"""What the container file says about the program is so: its health check, its model, its variables."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from support.certificates import Authority
from support.promql import ROOT
from support.server_running import server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.config import load_config
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.server.serve import running

TEXT = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())


def test_the_model_that_is_baked_in_by_default_can_be_served():
    [folder] = re.findall(r"^ARG MODEL=(\S+)$", TEXT, re.MULTILINE)
    assert load_checkpoint(ROOT / folder, device="cpu").config.name
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not any(folder.startswith(pattern.strip("*/")) for pattern in ignored)


def test_its_variables_are_those_that_the_server_reads():
    [words] = re.findall(r"^ENV (.*)$", TEXT, re.MULTILINE)
    environ = dict(word.split("=", 1) for word in words.split() if word.startswith("HOPE_"))
    config = load_config(environ=environ)
    assert str(config.model.checkpoint) == "/opt/model"
    assert config.server.listen == "0.0.0.0:50051"
    assert config.server.metrics_listen == "0.0.0.0:9464"
    assert config.server.health_listen == "127.0.0.1:50052"
    assert config.memory.url == environ["HOPE_MEMORY"]


async def test_the_health_check_tells_a_live_server_from_none(tmp_path):
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny", num_layers=1)
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    mutual = {
        "certificate": str(pair.certificate),
        "private_key": str(pair.private_key),
        "client_ca": str(authority.roots),
    }
    for tls in ({}, mutual):
        async with running(server_config(checkpoint, tmp_path, health_listen="127.0.0.1:0", tls=tls)) as server:
            assert await asyncio.to_thread(_check, server.server.ports["health_listen"]) == 0
        assert await asyncio.to_thread(_check, server.server.ports["health_listen"]) != 0


@pytest.mark.parametrize("packages", ["gcc libc6-dev"])
def test_the_build_for_gpus_is_told_with_the_compiler_that_triton_needs(packages):
    assert f"--build-arg PACKAGES='{packages}'" in TEXT
    assert "${PACKAGES}" in TEXT


def _check(port):
    [command] = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", TEXT, re.MULTILINE)
    program, *arguments = [word.replace(":50052", f":{port}") for word in json.loads(command)]
    assert program == "python"
    return subprocess.run([sys.executable, *arguments], capture_output=True, check=False).returncode
