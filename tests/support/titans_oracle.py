"""Self-modifying Titans written token by token from the paper's equations, one head, explicit matrices, fp64.

Shares no code with the product: five memories, each a list of matrices, updated by Eqs 88-93 as printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

NAMES = ("key", "value", "eta", "alpha", "memory")


def unit(x):
    return x / x.norm()


def silu(z):
    return z / (1 + torch.exp(-z))


@dataclass
class HeadOracle:
    """One head. ``base`` maps a memory's name to [W] or [W1, W2]; sizes [out, in]."""

    base: dict[str, list[torch.Tensor]]
    bias_eta: float
    bias_alpha: float
    eta_max: float
    alpha_min: float
    chunk: int
    memory_chunk: int
    causal: bool = True
    retain_delta: bool = True
    dgd_hidden: bool = False
    now: dict = field(init=False)
    snapshot: dict = field(init=False)
    count: int = 0

    def __post_init__(self):
        self.now = {n: [w.clone() for w in ws] for n, ws in self.base.items()}
        self.snapshot = {n: [w.clone() for w in ws] for n, ws in self.base.items()}

    def apply(self, name, matrices, x):
        y = matrices[0] @ x if len(matrices) == 1 else matrices[0] @ silu(matrices[1] @ x)
        return y if name in ("eta", "alpha") else x + y

    def gradients(self, name, k, v):
        """Gradient of 1/2 ||M(k) - vhat||^2 at the snapshot, by autograd, vhat constant."""
        matrices = [w.clone().requires_grad_() for w in self.snapshot[name]]
        target = self.apply(name, self.snapshot[name], v).detach()
        loss = 0.5 * ((self.apply(name, matrices, k) - target) ** 2).sum()
        hidden = silu(self.snapshot[name][-1] @ k) if len(matrices) == 2 else None
        return torch.autograd.grad(loss, matrices), hidden

    def write(self, name, k, v, eta, alpha):
        gradients, hidden = self.gradients(name, k, v)
        updated = []
        for i, (w, w0, g) in enumerate(zip(self.now[name], self.base[name], gradients, strict=True)):
            part = w - w0 if self.retain_delta else w
            takes_k = len(gradients) == 1 or i == 1
            if takes_k:
                part = part @ (alpha * torch.eye(len(k)) - eta * torch.outer(k, k))
            elif self.dgd_hidden:
                part = part @ (alpha * torch.eye(len(hidden)) - eta * torch.outer(hidden, hidden))
            else:
                part = alpha * part
            part = part - eta * g
            updated.append(part + w0 if self.retain_delta else part)
        self.now[name] = updated

    def step(self, x, q):
        see = lambda n: self.apply(n, self.snapshot[n], x)
        k, v = unit(see("key")), unit(see("value"))
        eta = self.eta_max * torch.sigmoid(see("eta")[0] + self.bias_eta)
        alpha = self.alpha_min + (1 - self.alpha_min) * torch.sigmoid(see("alpha")[0] + self.bias_alpha)
        out = self.apply("memory", (self.now if self.causal else self.snapshot)["memory"], unit(q))
        for name in NAMES:
            self.write(name, k, v, eta, alpha)
        self.count += 1
        for name in NAMES:
            every = self.memory_chunk if name == "memory" else self.chunk
            if self.count % every == 0:
                self.snapshot[name] = [w.clone() for w in self.now[name]]
        return out
