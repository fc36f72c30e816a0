"""Without a GPU the kernels run in Triton's interpreter, which has to be chosen before triton is imported."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def interpreter_takes_any_numpy():
    """numpy 2.3 and later refuse int() of an array of one element, which the interpreter's range() relies on."""
    if torch.cuda.is_available():
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    chosen = type(tl.cdiv).__name__ == "InterpretedFunction"
    assert chosen, "triton was imported before TRITON_INTERPRET=1 was set: set it in the environment of the test run"
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
    yield
    interpreter._patch_lang_tensor = patch
