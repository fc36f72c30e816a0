"""The levels' optimizers written out from their equations: one matrix, python floats, loops.

Each class keeps ``delta`` and its own memory; ``step`` sees one chunk's gradient. Nothing is shared with the product.
"""

from __future__ import annotations

import math


def zeros(rows, columns):
    return [[0.0] * columns for _ in range(rows)]


def transposed(a):
    return [list(column) for column in zip(*a, strict=True)]


def times(a, b):
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def combined(*terms):
    """The sum of (factor, matrix) pairs."""
    rows, columns = len(terms[0][1]), len(terms[0][1][0])
    return [[sum(f * m[i][j] for f, m in terms) for j in range(columns)] for i in range(rows)]


def length(a):
    return math.sqrt(sum(x * x for row in a for x in row))


class GdOracle:
    """Eq 71."""

    def __init__(self, rows, columns, *, rate, decay, **fields):
        self.rows, self.columns, self.rate, self.decay = rows, columns, rate, decay
        self.delta, self.chunks = zeros(rows, columns), 0
        for name, value in fields.items():
            setattr(self, name, value)
        self.begin()

    def begin(self):
        """Set up what is kept."""

    def step(self, g):
        self.chunks += 1
        self.delta = combined((self.decay, self.delta), (-self.rate, self.moved_by(g)))

    def moved_by(self, g):
        return g


class MomentumOracle(GdOracle):
    """Section 4.2."""

    def begin(self):
        self.m = zeros(self.rows, self.columns)

    def moved_by(self, g):
        self.m = combined((self.beta, self.m), (1.0, g))
        return self.m


class DeltaMomentumOracle(MomentumOracle):
    """Eq 49 with P = I: every row of m loses what it says along the keys."""

    def moved_by(self, g):
        key = g if self.keys == "raw" else combined((1 / length(g), g))
        overlap = times(transposed(key), key)
        kept = zeros(self.rows, self.columns)
        for i in range(self.rows):
            for j in range(self.columns):
                erased = sum(self.m[i][n] * overlap[n][j] for n in range(self.columns))
                kept[i][j] = self.beta * self.m[i][j] - self.erase * erased
        self.m = combined((1.0, kept), (1.0, g))
        return self.m


class DmgdOracle(GdOracle):
    """Eq 50 with m(u) = s (x + W1 tanh(W2 x)), x = u / s; the gradient of <M(x), x> by finite differences."""

    NUDGE = 1e-6

    def begin(self):
        self.w1 = zeros(self.columns, self.hidden_size)
        self.start = [
            [
                math.sqrt(2 / self.columns) * math.cos(math.pi / self.columns * (i + 0.5) * (j + 0.5))
                for i in range(self.columns)
            ]
            for j in range(self.hidden_size)
        ]
        self.w2 = [list(row) for row in self.start]

    def memory(self, x):
        hidden = [math.tanh(sum(w * v for w, v in zip(row, x, strict=True))) for row in self.w2]
        return [v + sum(w * h for w, h in zip(row, hidden, strict=True)) for v, row in zip(x, self.w1, strict=True)]

    def similarity(self, xs):
        return sum(sum(a * b for a, b in zip(self.memory(x), x, strict=True)) for x in xs) / len(xs)

    def slope(self, matrix, xs):
        found = zeros(len(matrix), len(matrix[0]))
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                row[j] = value + self.NUDGE
                above = self.similarity(xs)
                row[j] = value - self.NUDGE
                found[i][j] = (above - self.similarity(xs)) / (2 * self.NUDGE)
                row[j] = value
        return found

    def moved_by(self, g):
        scale = length(g) / math.sqrt(self.rows)
        xs = combined((1 / scale, g))
        slopes = self.slope(self.w1, xs), self.slope(self.w2, xs)
        self.w1 = combined((self.beta, self.w1), (self.inner_rate, slopes[0]))
        learned = combined((1.0, self.w2), (-1.0, self.start))
        self.w2 = combined((1.0, self.start), (self.beta, learned), (self.inner_rate, slopes[1]))
        return combined((scale, [self.memory(x) for x in xs]))


class M3Oracle(GdOracle):
    """Algorithm 1 line by line, with the decays, damping and length that ``MultiScaleMomentum`` states."""

    def begin(self):
        self.m1, self.m2, self.v = (zeros(self.rows, self.columns) for _ in range(3))
        self.seen = []

    def moved_by(self, g):
        if self.seen and len(self.seen) % self.frequency == 0:  # line 3, as the next round of f chunks begins
            last = self.seen[-self.frequency :]
            self.m2 = combined((self.beta_slow, self.m2), *((1.0, one) for one in last))
        self.seen.append(g)
        self.m1 = combined((self.beta_fast, self.m1), (1.0, g))
        for i in range(self.rows):
            for j in range(self.columns):
                self.v[i][j] = self.beta_square * self.v[i][j] + g[i][j] ** 2
        mean = sum(x for row in self.v for x in row) / (self.rows * self.columns)
        above = combined((1.0, self.orthogonal(self.m1)), (self.slow_weight, self.orthogonal(self.m2)))
        d = [
            [a / math.sqrt(v + self.damping * mean) for a, v in zip(*pair, strict=True)]
            for pair in zip(above, self.v, strict=True)
        ]
        return combined((length(self.m1) / length(d), d))

    def orthogonal(self, m):
        """Newton-Schulz, X <- a X + b (X X^T) X + c (X X^T)^2 X, from either side alike."""
        if not length(m):
            return m
        x = combined((1 / length(m), m))
        for _ in range(self.steps):
            cubed = times(times(x, transposed(x)), x)
            fifth = times(times(x, transposed(x)), cubed)
            x = combined((3.4445, x), (-4.7750, cubed), (2.0315, fifth))
        return x


ORACLES = {
    "gd": GdOracle,
    "momentum": MomentumOracle,
    "delta_momentum": DeltaMomentumOracle,
    "dmgd": DmgdOracle,
    "m3": M3Oracle,
}
