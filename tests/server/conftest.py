"""A real server and a real client, over loopback."""

from __future__ import annotations

from contextlib import asynccontextmanager

import grpc
import pytest
from support.server_running import connect, server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.server.serve import running


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def open_server(checkpoint_folder, tmp_path):
    """``async with open_server(**settings) as server``; all of one test share one store."""

    @asynccontextmanager
    async def opened(**changes):
        async with running(server_config(checkpoint_folder, tmp_path, **changes)) as server:
            yield server

    return opened


@pytest.fixture
async def server(open_server):
    async with open_server() as started:
        yield started


@pytest.fixture
async def client(server):
    async with connect(server) as connected:
        yield connected


@pytest.fixture
async def channel(server):
    """The wire itself, for messages that the client would not send."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened
