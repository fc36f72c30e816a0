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


@pytest.fixture(scope="session", autouse=True)
def interpreter_repeats_nothing(interpreter_takes_any_numpy):
    if torch.cuda.is_available():
        yield
        return
    from support.interpreter import hasten

    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def interpreter_sums_rows_alike(interpreter_takes_any_numpy):
    """numpy's BLAS sums a row of a tile by where in it the row stands, on some processors; a card does not.

    In 64 bits what differs is rounded away.
    """
    if torch.cuda.is_available():
        yield
        return
    import numpy as np
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    create_dot = builder.create_dot

    def wide_dot(self, a, b, d, *precision):
        if a.data.dtype != np.float32:
            return create_dot(self, a, b, d, *precision)
        product = np.matmul(a.data.astype(np.float64), b.data.astype(np.float64))
        return interpreter.TensorHandle((product + d.data).astype(d.data.dtype), d.dtype.scalar)

    builder.create_dot = wide_dot
    yield
    builder.create_dot = create_dot
