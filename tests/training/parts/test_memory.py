"""What is trained is what is served: B after several adaptations, against the server's rule spelled out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from support.tiny_attention import RANK, SHAPE, plain_hidden, tiny_part, tiny_weights

from hope_serve.model.attention import MAX_TOKEN_WEIGHT
from hope_serve.model.attention_learn import LayerFunctions
from hope_serve.model.cadence import Cadence
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.packing import Bucket, tell_row, told_tensors

CHUNK = 8


def make_learner():
    projection, weight, bias = tiny_part()
    layers = SHAPE.num_layers
    part = {
        "projection": projection,
        "log_rate": torch.linspace(-4, -3, layers, dtype=torch.float64),
        "decay_logit": torch.linspace(1, 2, layers, dtype=torch.float64),
        "token_weight.weight": weight,
        "token_weight.bias": bias,
    }
    return Learner(shape=SHAPE, weights=tiny_weights(), part=part, functions=LayerFunctions())


def make_bucket(chunks, learned=None):
    return Bucket(
        name="tiny",
        users=1,
        chunks=chunks,
        chunk_tokens=CHUNK,
        fact_chunks=learned or chunks,
        learned_chunks=learned or chunks,
        ask_tokens=8,
        other_tokens=8,
        facts=(1, 1),
    )


def text(length, seed):
    return torch.randint(0, SHAPE.vocab_size, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def taught(learner, texts, bucket, learned=None):
    told = told_tensors([tell_row(one, noise=(), bucket=bucket) for one in texts], bucket)
    taught_by = make_bucket(bucket.chunks, learned)
    return learner.teach(told._replace(mask=told.mask.double()), (told.mask > 0).any(-1), taught_by)


class Server:
    """The serving rule for one user: gradients at the last update's B, chunks that end with an adaptation."""

    def __init__(self, learner):
        self.learner, self.cadence = learner, Cadence(chunk_sizes=(CHUNK,), closes=True)
        self.b = torch.zeros(SHAPE.num_layers, SHAPE.hidden_size, RANK, dtype=torch.float64)

    def adapt(self, ids):
        """Texts here are never cut in two, so that a plain reading gives the gradient."""
        left = len(ids) - 1
        assert left <= self.cadence.room()
        self.cadence = self.cadence.after(left).at_end()
        assert self.cadence.fired() == (True,)
        part = self.learner.part
        rate, decay = part["log_rate"].exp()[:, None, None], torch.sigmoid(part["decay_logit"])[:, None, None]
        self.b = decay * self.b - rate * self.gradient(ids)

    def gradient(self, ids):
        rule, leaf = self.learner.rule, self.b.clone().requires_grad_()
        hidden = plain_hidden(self.learner.weights, ids[:-1], rule.projection, leaf)
        counts = MAX_TOKEN_WEIGHT * torch.sigmoid(hidden.detach() @ rule.weight + rule.bias)
        losses = F.cross_entropy(hidden @ self.learner.weights.head.T, torch.tensor(ids[1:]), reduction="none")
        return torch.autograd.grad((counts * losses).sum(), leaf)[0]


def served(learner, texts):
    server = Server(learner)
    for ids in texts:
        server.adapt(ids)
    return server.b


def test_one_adaptation_of_less_than_a_chunk_is_one_update():
    learner, texts = make_learner(), [text(5, 2)]
    got = taught(learner, [texts], make_bucket(1))[0]
    assert (got - served(learner, texts)).abs().max() < 1e-10


def test_later_chunks_learn_at_the_memory_that_the_earlier_ones_left():
    learner, texts = make_learner(), [text(4, 1), text(6, 2), text(9, 3), text(5, 4)]
    got = taught(learner, [texts], make_bucket(4))[0]
    assert (got - served(learner, texts)).abs().max() < 1e-10


def test_a_user_who_told_less_is_left_alone_by_the_later_chunks_of_others():
    learner, short, long = make_learner(), [text(5, 1)], [text(9, 2), text(6, 3)]
    both = taught(learner, [short, long], make_bucket(2))
    assert (both[0] - served(learner, short)).abs().max() < 1e-10
    assert (both[1] - served(learner, long)).abs().max() < 1e-10


def test_constant_chunks_move_the_memory_as_much_as_learned_ones():
    learner, texts = make_learner(), [text(9, 1), text(9, 2), text(7, 3)]
    whole, partly = (taught(learner, [texts], make_bucket(3), learned) for learned in (3, 1))
    assert torch.equal(whole, partly)
