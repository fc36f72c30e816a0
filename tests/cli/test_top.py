"""``hope-serve top``: what it shows of a server that was used, and how it reads metrics."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from hope_serve.api import SamplingParams
from hope_serve.cli.scrape import Scrape, Window
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.metrics import Metrics


@pytest.fixture(scope="module")
def pod(checkpoint_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("pod")
    with ServerProcess(
        checkpoint=str(checkpoint_folder), memory=f"sqlite://{home}/memory.db", log=home / "log", device="cpu"
    ) as server:
        yield server


def test_one_view_shows_a_working_pod(hope, pod):
    with Busy(pod):
        said = hope("top", "--metrics", pod.metrics_url, "--once", "--interval", "2")
    assert said.code == 0
    assert "hope-tiny on cpu" in said.out
    assert "store up" in said.out
    for name in ("tokens written", "tokens learned", "calls"):
        assert float(re.search(rf"{name} +([\d,.]+)", said.out)[1].replace(",", "")) > 0
    for name in ("first token", "between tokens", "engine step", "adapt", "commit"):
        p50, p95, p99 = (float(n) for n in re.search(rf"{name} +([\d.]+) +([\d.]+) +([\d.]+)", said.out).groups())
        assert 0 < p50 <= p95 <= p99
    assert re.search(r"committed +[\d.]+", said.out)
    assert re.search(r"nats a token, median +[+-]\d", said.out)


def test_the_live_view_draws_until_it_is_interrupted(pod):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hope_serve.cli", "top", "--metrics", pod.metrics_url, "--interval", "0.1"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    seen = ""
    try:
        give_up = time.monotonic() + 60
        while seen.count("saturation") < 3:
            assert time.monotonic() < give_up, seen
            if select.select([ours], [], [], 0.5)[0]:
                seen += os.read(ours, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while select.select([ours], [], [], 0.2)[0]:
            try:
                os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_nobody_there_is_said_with_the_address(hope):
    said = hope("top", "--metrics", "http://127.0.0.1:1/metrics", "--once")
    assert said.code == 3
    assert "http://127.0.0.1:1/metrics" in said.err


def test_what_is_no_url_is_wrong_use(hope):
    said = hope("top", "--metrics", "localhost:9464", "--once")
    assert said.code == 2
    assert "http://host:port/metrics" in said.err


def test_rates_and_quantiles_are_those_between_two_looks():
    metrics = Metrics()
    first = scraped(metrics, at=10.0)
    metrics.generation_tokens_total().inc(50)
    metrics.adapt_total(outcome="committed").inc(5)
    for seconds in (0.0005, 0.0015, 0.0015, 0.0015):
        metrics.inter_token_latency_seconds().observe(seconds)
    window = Window(first=first, last=scraped(metrics, at=15.0))
    assert window.rate(Metrics.generation_tokens_total) == 10
    assert window.rate(Metrics.adapt_total, outcome="committed") == 1
    assert window.rate(Metrics.adapt_total, outcome="failed") == 0
    assert window.quantile(Metrics.inter_token_latency_seconds, 0.25) == pytest.approx(0.0005)
    assert window.quantile(Metrics.inter_token_latency_seconds, 1.0) == pytest.approx(0.002)
    assert window.quantile(Metrics.adapt_duration_seconds, 0.5) is None


def test_quantiles_of_what_falls_below_zero_are_below_zero():
    metrics = Metrics()
    first = scraped(metrics, at=0.0)
    for change in (-1.5, -1.5, -0.7, -20.0):
        metrics.adapt_nll_delta().observe(change)
    window = Window(first=first, last=scraped(metrics, at=1.0))
    assert window.quantile(Metrics.adapt_nll_delta, 0.25) == -8.0
    assert window.quantile(Metrics.adapt_nll_delta, 0.75) == -1.0
    assert window.quantile(Metrics.adapt_nll_delta, 1.0) == -0.5


def test_a_pod_that_was_restarted_has_no_rates_below_zero():
    old, new = Metrics(), Metrics()
    old.prompt_tokens_total().inc(1000)
    new.prompt_tokens_total().inc(10)
    window = Window(first=scraped(old, at=0.0), last=scraped(new, at=1.0))
    assert window.rate(Metrics.prompt_tokens_total) == 10


def scraped(metrics, *, at):
    families = list(metrics.registry.collect())
    return Scrape(
        at=at,
        samples={(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples},
    )


class Busy:
    """Somebody calls the pod for as long as the block lasts."""

    def __init__(self, pod):
        self._pod, self._stop = pod, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call()))

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    async def _call(self):
        short = SamplingParams(max_tokens=8, ignore_eos=True)
        async with AsyncHopeClient(self._pod.target) as client:
            while not self._stop.is_set():
                await client.adapt("ann", "My dog is called Biscuit. " * 4)
                await client.generate("My dog", user_id="ann", sampling=short)
