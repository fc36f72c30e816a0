"""A real server for the clients to call."""

from __future__ import annotations

import pytest
from support.server_running import server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.server.serve import running


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
async def server(checkpoint_folder, tmp_path):
    async with running(server_config(checkpoint_folder, tmp_path)) as started:
        yield started
