"""News of the engine's thread on the event loop: all of it, in its order, with few wakes."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

from hope_serve.engine.listeners import Mail


def run_threads(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def test_nothing_that_is_posted_is_lost_and_each_threads_order_is_kept():
    mail, got = Mail.here(), []

    def post(name):
        for number in range(5000):
            mail.post(got.append, (name, number))

    await asyncio.to_thread(run_threads, *[lambda name=name: post(name) for name in "abcd"])
    await asyncio.sleep(0)
    assert len(got) == 4 * 5000
    for name in "abcd":
        assert [number for who, number in got if who == name] == list(range(5000))


async def test_however_much_waits_the_event_loop_is_woken_once(monkeypatch):
    mail, got, wakes = Mail.here(), [], []
    loop = asyncio.get_running_loop()
    woken = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: wakes.append(args) or woken(*args))
    for number in range(100):  # this thread is the loop's own, which therefore delivers nothing meanwhile
        mail.post(got.append, number)
    await asyncio.sleep(0)
    assert got == list(range(100))
    assert len(wakes) == 1
    mail.post(got.append, 100)
    await asyncio.sleep(0)
    assert len(wakes) == 2
    assert got[-1] == 100


async def test_one_event_loop_has_one_mail():
    assert Mail.here() is Mail.here()


def test_a_loop_that_has_closed_hears_nothing_and_is_not_kept():
    async def here():
        return Mail.here()

    loop = asyncio.new_event_loop()
    mail, got = loop.run_until_complete(here()), []
    loop.close()
    mail.post(got.append, 1)
    assert got == []
    kept = weakref.ref(loop)
    del loop
    gc.collect()
    assert kept() is None
    mail.post(got.append, 2)
    assert got == []
