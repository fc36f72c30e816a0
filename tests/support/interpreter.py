"""Triton's interpreter without what it does over and over: the same numbers in a fraction of the time."""

from __future__ import annotations

from functools import cache

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def hasten(monkeypatch):
    """Functions of a kernel find the language patched, dtypes are looked up once, and reductions take whole rows."""
    _patch_each_language_once_a_launch(monkeypatch)
    _remember_dtypes(monkeypatch)
    monkeypatch.setattr(interpreter.ReduceOps, "generic_reduce", _reduce_rows)


def _patch_each_language_once_a_launch(monkeypatch):
    """It patches all of ``tl`` at every call of a function inside a kernel, and finds nothing left to patch."""
    patch, patched = interpreter._patch_lang, set()

    @cache
    def languages(fn):
        return frozenset(value.__name__ for value in fn.__globals__.values() if value is tl or value is tl.core)

    def launched(fn):
        patched.clear()
        patched.add(languages(fn))
        return patch(fn)

    def called(self, *arguments, **named):
        if languages(self.fn) not in patched:
            patched.add(languages(self.fn))
            patch(self.fn)
        try:
            return self.rewrite()(*arguments, **named)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    monkeypatch.setattr(interpreter, "_patch_lang", launched)
    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", called)


def _remember_dtypes(monkeypatch):
    look_up, known = interpreter._get_np_dtype, {}

    def remembered(dtype):
        name = dtype.scalar.name
        if name not in known:
            known[name] = look_up(dtype)
        return known[name]

    monkeypatch.setattr(interpreter, "_get_np_dtype", remembered)


def _reduce_rows(self, tensors):
    """``tl.reduce`` by a function of one's own: in the order of number by number, for all of a row together."""
    kept, (tensors, axis) = self.axis, self.unravel(tensors, self.axis)
    assert kept is not None or not self.keep_dims, "no kernel asks for it"
    dtypes, rows = [one.dtype for one in tensors], [np.moveaxis(one.handle.data, axis, 0) for one in tensors]
    total = [self.to_tensor(row[0], dtype) for row, dtype in zip(rows, dtypes, strict=True)]
    for i in range(1, len(rows[0])):
        more = [self.to_tensor(row[i], dtype) for row, dtype in zip(rows, dtypes, strict=True)]
        found = self.combine_fn.fn(*total, *more)
        total = found if isinstance(found, tuple | tl.tuple) else (found,)
    if not self.keep_dims:
        return list(total)
    data = [np.expand_dims(one.handle.data, axis) for one in total]
    return [self.to_tensor(one, dtype) for one, dtype in zip(data, dtypes, strict=True)]
