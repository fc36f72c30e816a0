"""What a serving process is set up as, before anything is loaded."""

from __future__ import annotations

import sys

import pytest

from hope_serve.config import Config
from hope_serve.server import serve


@pytest.fixture(autouse=True)
def interval():
    """As it was, for the tests behind this one."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_a_serving_process_lets_a_waiting_thread_have_the_interpreter_at_once(monkeypatch):
    """The engine's thread waits so long with every operation on tensors while the event loop is busy."""
    seen = []

    async def serving(*_):
        seen.append(sys.getswitchinterval())

    monkeypatch.setattr(serve, "_serve", serving)
    monkeypatch.setattr(serve, "configure_logs", lambda _: None)
    monkeypatch.setattr(serve, "_share_heaps", lambda: None)
    serve.run(Config(), print)
    assert seen == [pytest.approx(serve.SWITCH_SECONDS)]
    assert serve.SWITCH_SECONDS <= 2e-4
