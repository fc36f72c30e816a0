"""A kernel that reduces a tile by a function of its own."""

import triton
import triton.language as tl


@triton.jit
def double_and_add(a, b, c, d):
    return 2 * a + c, b + d


@triton.jit
def reduce_kernel(x_ptr, first_ptr, second_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, AXIS: tl.constexpr):
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + rows[:, None] * COLUMNS + columns[None, :])
    first, second = tl.reduce((x, x), AXIS, double_and_add)
    kept = columns if AXIS == 0 else rows
    tl.store(first_ptr + kept, first)
    tl.store(second_ptr + kept, second)
