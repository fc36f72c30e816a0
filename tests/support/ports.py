"""Ports for servers that have to come back to the port they had."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, LAST, EACH = 12_000, 22_000, 2_500
"""Below the ports that the system hands out by itself, and so is a cluster's second port, 10,000 above the first."""


def free_port():
    """A port that nobody has, and that neither this process nor another worker of the test run takes until it ends.

    One that is only found free may be handed to anybody while its server is down.
    """
    while True:
        port = next(_PORTS)
        try:
            for each in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


def _own_ports():
    """From a place of this worker's own, and there from another for every process."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + worker * EACH % (LAST - FIRST)
    begin = os.getpid() * 7 % EACH
    return itertools.cycle([*range(first + begin, first + EACH), *range(first, first + begin)])


_PORTS = _own_ports()
