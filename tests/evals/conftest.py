"""A whole server with the tiny model, as evaluations meet it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from support.server_running import connect, server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.evals.progress import Bars
from hope_serve.evals.subject import Subject
from hope_serve.server.serve import running


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def open_subject(checkpoint, tmp_path):
    """``async with open_subject(**server options) as subject``."""

    @asynccontextmanager
    async def opened(**options):
        async with running(server_config(checkpoint, tmp_path, **options)) as server, connect(server) as client:
            with Bars() as bars:
                yield Subject(client, await client.get_model(), bars, concurrency=4)

    return opened
