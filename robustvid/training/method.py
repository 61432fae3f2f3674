"""How a plan trains: objective, threats and inner attacks, brought together and checked before anything is decoded."""

from __future__ import annotations

from typing import NamedTuple

from robustvid.errors import CardError
from robustvid.evaluation.cards import load_attack
from robustvid.evaluation.fitting import fitted
from robustvid.training.objectives import Find, Objective, load_objective
from robustvid.training.plan import Threat, TrainingPlan, parse_threat


class Method(NamedTuple):
    """The objective of a plan, its threats, and how adversarial clips are found in each.

    Attributes:
        objective: what is learnt of a batch.
        threats: what it is learnt against, and what validation measures.
        finds: one for each threat; none where the objective needs no adversarial clips.
    """

    objective: Objective
    threats: tuple[Threat, ...]
    finds: tuple[Find, ...]


def load_method(plan: TrainingPlan) -> Method:
    """Return what a plan trains by.

    Raises:
        CardError: objective, threats and attacks do not go together.
        BudgetError: a threat cannot be read.
        UnknownNameError: there is no such objective or attack.
    """
    objective = load_objective(plan.objective)
    threats = tuple(parse_threat(text) for text in plan.threats)
    find = objective.find
    if find is None:
        return Method(objective, threats, ())
    if not threats:
        raise CardError(f"objective {plan.objective} needs something to train against: threats=('linf frame 8/255',)")
    if objective.replays > 1 and len(threats) > 1:
        raise CardError(f"objective {plan.objective} carries one perturbation along: give one threat")
    return Method(objective, threats, tuple(_card(plan, objective, t.attack) if t.attack else find for t in threats))


def _card(plan: TrainingPlan, objective: Objective, name: str) -> Find:
    """Return the attack that finds the clips instead of the objective."""
    attack = load_attack(name)
    if not objective.swap:
        raise CardError(f"objective {plan.objective} finds its clips itself; train on {attack.name} with pgd or trades")
    if fitted([[attack]]):
        raise CardError(f"{attack.name} is fitted to a finished model and cannot be trained against")
    return attack
