"""What every attack of another library is held to, with settings small enough to run them all."""

import inspect
import random

import numpy as np
import torch

from robustvid.budget import Budget
from robustvid.contracts import in_lanes
from robustvid.testing import TinyVideoNet

SHAPE = (4, 8, 8)
SMALL = {
    "steps": 2,
    "max_iter": 2,
    "n_queries": 5,
    "popsize": 4,
    "restarts": 2,
    "max_iterations": 2,
    "binary_search_steps": 2,
    "nb_random_init": 1,
    "noise_batch_size": 2,
    "max_eval": 20,
    "init_eval": 5,
    "init_size": 3,
    "num_trial": 2,
    "sample_size": 2,
    "query_limit": 20,
    "k": 3,
    "nb_steps": 2,
    "max_halving": 1,
    "max_doubling": 1,
    "largest_const": 1e-4,
    "N": 2,
    "m": 2,
    "nb_parallel": 4,
}
SMALLER = {"SparseFool": {"steps": 1}}
BUDGETS = (Budget("linf", "8/255"), Budget("l2", clip=1.0))
ODD_BUDGETS = (
    Budget("linf", "8/255", frames=2),
    Budget("linf", torch.tensor([0.01, 0.02, 0.01])),
    Budget("l2", frame=0.5),
    Budget("l2", frame=0.4, clip=0.6),
    Budget("l2", clip=torch.tensor([0.3, 0.0, 0.9])),
)


class Lanes(torch.nn.Module):
    """A model asked as the evaluator asks it, so that bits do not depend on the batch."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, clips):
        return in_lanes(self.model, clips, 4)


def small(library, name, **more):
    attack = library.load(name)
    known = inspect.signature(attack).parameters
    settings = {key: value for key, value in SMALL.items() if key in known} | SMALLER.get(name, {}) | more
    return lambda model, clips, labels, budget, seeds: attack(model, clips, labels, budget, seeds, **settings)


def problem(shape=SHAPE, count=3, classes=10):
    """A model in odd company of modes and gradients, with clips that it gets right."""
    model = TinyVideoNet(classes).train()
    model.features[1].eval()  # a frozen BatchNorm in a model that trains
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.full_like(model.head.bias, 7.0)
    clips = torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        labels = model(clips).argmax(1)
    return Lanes(model), clips, labels, torch.arange(count) + 2**40


def state(model):
    return (
        [module.training for module in model.modules()],
        [(p.requires_grad, p.grad is None or p.grad.clone()) for p in model.parameters()],
        {key: tensor.clone() for key, tensor in model.state_dict().items()},
        (random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.is_grad_enabled()),
    )


def assert_same_state(before, after):
    assert before[0] == after[0]
    assert all(a[0] == b[0] and _same(a[1], b[1]) for a, b in zip(before[1], after[1], strict=True))
    assert all(torch.equal(before[2][key], after[2][key]) for key in before[2])
    assert before[3][0] == after[3][0]
    assert all(np.array_equal(a, b) for a, b in zip(before[3][1], after[3][1], strict=True))
    assert torch.equal(before[3][2], after[3][2])
    assert before[3][3] == after[3][3]


def _same(first, second):
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first is second


def assert_keeps_the_contract(library, name, budgets=BUDGETS, shape=SHAPE):
    model, clips, labels, seeds = problem(shape)
    attack = small(library, name)
    served = [budget for budget in budgets if budget.norm in library.usable[name].norms]
    for budget in served:
        given, before = (clips.clone(), labels.clone(), seeds.clone()), state(model)
        found = attack(model, clips, labels, budget, seeds)
        assert_same_state(before, state(model))
        assert all(torch.equal(a, b) for a, b in zip(given, (clips, labels, seeds), strict=True))
        assert found.shape == clips.shape
        assert found.dtype == clips.dtype
        assert not found.requires_grad
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        assert float(budget.size(found - clips).max()) <= 1
        assert torch.equal(found, attack(model, clips, labels, budget, seeds))
        last = torch.tensor([2])
        alone = attack(model, clips[2:], labels[2:], budget.select(last), seeds[2:])
        assert torch.equal(found[2:], alone), f"{name}: a clip's result depends on its company"
    return len(served)
