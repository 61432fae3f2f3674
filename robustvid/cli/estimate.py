"""``robustvid attack --dry-run``: what would be measured, and about how long it takes, from timing one batch."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from typing import Any

import click


def estimate(
    model: Any,
    data: Any,
    attacks: Any,
    budgets: Any,
    *,
    surrogate: Any,
    training: Any,
    strategy: str,
    precision: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Print the plan of a run and an upper bound of its time; writes nothing to disk.

    An attack that is fitted on training clips is fitted for the smallest budget of each threat, to time that too.
    """
    from robustvid.evaluation.checks import check_models
    from robustvid.evaluation.fast import PRECISIONS
    from robustvid.evaluation.machine import fastest_threads, lent, pick_device
    from robustvid.evaluation.probe import Probe, lanes_on
    from robustvid.evaluation.search import STRATEGIES
    from robustvid.evaluation.sweep import choose_clips, make_fitter, plan_attacks
    from robustvid.evaluation.threats import group_threats
    from robustvid.evaluation.verdict import Judge, load_clip
    from robustvid.registry import check_name

    check_name("strategy", strategy, STRATEGIES)
    check_name("precision", precision, PRECISIONS)
    groups, _ = plan_attacks(attacks)
    threats = group_threats(budgets)
    check_models(model, data, surrogate, training)
    place = pick_device(settings["device"])
    lanes = lanes_on(place)
    clips = choose_clips(len(data), settings["limit"], settings["seed"])
    sample = [load_clip(data, index, model.card.clip) for index in clips[:lanes]]
    attacked = None if surrogate is None else Probe(surrogate, lanes, surrogate=True)
    judge = Judge(Probe(model, lanes), place, settings["seed"], lanes, attacked)
    total = 0.0
    with ExitStack() as stack:
        stack.enter_context(lent([model, surrogate], place))
        judge.settle(sample, precision)
        stack.enter_context(fastest_threads(lambda: judge.trial(sample), place))
        judge.prepare = make_fitter(judge, training, model.card.clip, None).ready
        clean = [row.predicted for row in judge.clean(sample)]
        for threat in threats:
            for group in groups:
                for number, attack in enumerate(group):
                    begin = time.perf_counter()
                    judge.prepare(attack, threat, [0])
                    total += len(threat.budgets) * (time.perf_counter() - begin)
                    begin = time.perf_counter()
                    judge.attack(attack, threat, sample, [0] * len(sample), clean)
                    per_clip = (time.perf_counter() - begin) / len(sample)
                    total += len(clips) * per_clip * _rounds(strategy, len(threat.budgets), first=number == 0)
    plan = {
        "model": model.card.name,
        "surrogate": None if surrogate is None else surrogate.card.name,
        "data": data.name,
        "clips": len(clips),
        "threats": {threat.name: [budget.describe() for budget in threat.budgets] for threat in threats},
        "attacks": [attack.name for group in groups for attack in group],
        "strategy": strategy,
        "device": str(place),
        "seconds_at_most": round(total, 1),
    }
    click.echo(json.dumps(plan) if as_json else _words(plan))


def _rounds(strategy: str, budgets: int, *, first: bool) -> int:
    """Return how often an attack meets a clip that it never breaks."""
    if strategy == "every":
        return budgets
    return math.ceil(math.log2(budgets + 1)) if first else 1


def _words(plan: dict[str, Any]) -> str:
    threats = "\n".join(f"  {name}: {', '.join(budgets)}" for name, budgets in plan["threats"].items())
    subject = plan["model"] + (f" attacked through {plan['surrogate']}" if plan["surrogate"] else "")
    return (
        f"{subject} on {plan['clips']} clips of {plan['data']}, {plan['strategy']}, on {plan['device']}\n"
        f"{threats}\n"
        f"  attacks: {', '.join(plan['attacks'])}\n"
        f"about {plan['seconds_at_most']:.0f} s at most, if no clip breaks early (from timing one batch of each attack)"
    )
