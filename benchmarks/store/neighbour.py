"""Another client of the server, in a process of its own: reads a small key again and again, and prints the waits."""

from __future__ import annotations

import json
import sys
import time

import redis

PAUSE_SECONDS = 0.002


def main(port: int, seconds: float) -> None:
    """Print a line when connected, then the waits in seconds as one JSON list."""
    client = redis.Redis(port=port)
    client.ping()
    print("ready", flush=True)
    waits: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        client.get("neighbour")
        waits.append(time.perf_counter() - began)
        time.sleep(PAUSE_SECONDS)
    print(json.dumps(waits))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
