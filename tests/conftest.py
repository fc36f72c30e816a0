"""What every test runs under."""

import os
from importlib.util import find_spec

import pytest

from hope_serve.config import calm_threads

calm_threads()
if "PYTEST_XDIST_WORKER" in os.environ:
    # One core a worker, for the servers that it starts as well: threads that wait for each other gain nothing.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if find_spec("hypothesis"):  # machines that run the GPU tests alone may lack it
    from hypothesis import settings

    # A busy machine is no bug, and the same examples every time are no lottery.
    settings.register_profile("steady", deadline=None, derandomize=True, database=None)
    settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    import torch

    # Those that are given more time go first, so that no worker begins one when the others are done.
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    if torch.cuda.is_available():
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
