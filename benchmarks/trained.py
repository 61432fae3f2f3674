"""Orderings that must hold between trained models: radius, threat, schedule, and one step without noise.

    python -m benchmarks.trained --out trained

Each line is a claim, what was measured with PGD-20 on test clips of motion10 where nothing else is said, with 95 %
Wilson intervals, and whether it holds. Trainings and runs are kept in ``--out``; the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import Some
from robustvid.evaluation.results import wilson
from robustvid.models.classifier import VideoClassifier
from robustvid.training.validation import alarms
from robustvid.training.zoo import RECIPES

PATCH = "patch:tries=1,steps=10"
COLLAPSE = rv.Budget("linf", "16/255")


class Score(NamedTuple):
    """How many of ``n`` test clips are right as they are, and how many stand."""

    name: str
    clean: int
    robust: int
    n: int

    def __str__(self) -> str:
        """Return both shares with their intervals."""
        return f"{self.name} {_share(self.clean, self.n)} clean, {_share(self.robust, self.n)} robust"


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{100 * count / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


class Bench:
    """Models trained once, and measured on the clips that ``robustvid attack --clips N`` draws."""

    def __init__(self, count: int, out: Path) -> None:
        self.count, self.out = count, out
        self.test, self.training = rv.load_data("motion10"), rv.load_data("motion10", split="train")

    def train(self, name: str, epochs: int, objective: str, threat: str, **settings: Any) -> VideoClassifier:
        """Return the zoo's natural conv3d trained on, its history in the folder ``name``."""
        settings = {"roll": True, "in_memory": True} | settings
        return self.follow(name, rv.TrainingPlan(epochs, objective=objective, threats=(threat,), **settings))

    def follow(self, name: str, plan: rv.TrainingPlan, clips: int | None = None) -> VideoClassifier:
        """Return the zoo's natural conv3d trained by a plan, on the first ``clips`` training clips."""
        print(f"training {name} ...", flush=True)
        data = self.training if clips is None else Some(self.training, range(clips))
        return rv.train(rv.load_model("conv3d"), data, plan, out=self.out / name, name=name)

    def score(self, model: VideoClassifier, budget: rv.Budget, attack: str = "pgd:steps=20") -> Score:
        """Return what one attack leaves of a model."""
        key = f"{model.card.name}-{attack.partition(':')[0]}-{budget.describe().replace(' ', '-').replace('/', '_')}"
        results = rv.evaluate(model, self.test, [attack], [budget], limit=self.count, out=self.out / "scores" / key)
        point = results.curve(results.threats[0]).iloc[-1]
        return Score(model.card.name, results.clean["correct"], int(point.correct), int(point.n))

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return what was measured after every epoch of a training."""
        found: list[dict[str, Any]] = json.loads((self.out / name / "history.json").read_text())
        return found


def linf(n: int) -> rv.Budget:
    """Return n/255 in every frame."""
    return rv.Budget("linf", f"{n}/255")


def natural_falls(bench: Bench) -> tuple[str, str, bool]:
    """O1: a naturally trained model keeps less than 5 %."""
    scores = [bench.score(rv.load_model("conv3d"), linf(n)) for n in (4, 8)]
    holds = scores[0].robust < 0.05 * scores[0].n
    return "natural training keeps under 5 % at 4/255", f"at 4/255: {scores[0]}; at 8/255: {scores[1]}", holds


def pgd_gains(bench: Bench) -> tuple[str, str, bool]:
    """O2: PGD training gains at least 25 points at its radius and gives up 5 to 30 of clean accuracy."""
    before, after = (bench.score(rv.load_model(name), linf(8)) for name in ("conv3d", "conv3d-pgd"))
    gain, loss = after.robust - before.robust, before.clean - after.clean
    holds = gain >= 0.25 * after.n and 0.05 * after.n <= loss <= 0.30 * after.n
    return "PGD training: 25 points more robust, 5 to 30 points less clean", f"{before}; {after}, at 8/255", holds


def radius_costs(bench: Bench) -> tuple[str, str, bool]:
    """O3: the larger the radius of training, the lower clean accuracy."""
    models = {n: bench.train(f"n-fgsm-{n}", 6, "n-fgsm", f"linf frame {n}/255") for n in (4, 8, 16, 24)}
    scores = [bench.score(model, linf(n)) for n, model in models.items()]
    clean = [score.clean for score in scores]
    holds = clean == sorted(clean, reverse=True) and clean[-1] < clean[0]
    return "a larger radius in training costs clean accuracy", "; ".join(map(str, scores)) + ", each at its own", holds


def threats_differ(bench: Bench) -> tuple[str, str, bool]:
    """O6: training against one threat does not protect from another."""
    patched = bench.train("patch-at", 6, "pgd", f"{PATCH} @ linf frame 1")
    models = {"conv3d": rv.load_model("conv3d"), "conv3d-pgd": rv.load_model("conv3d-pgd"), "patch-at": patched}
    pgd = {name: bench.score(model, linf(8)) for name, model in models.items()}
    patch = {name: bench.score(model, rv.Budget("linf", 1), "patch") for name, model in models.items()}
    told = ", ".join(
        f"{name} {_share(pgd[name].robust, pgd[name].n)} and {_share(patch[name].robust, patch[name].n)}"
        for name in models
    )
    holds = pgd["patch-at"].robust < pgd["conv3d-pgd"].robust and patch["conv3d-pgd"].robust < patch["patch-at"].robust
    return "each training protects from its own threat", f"PGD at 8/255 and patch: {told}", holds


def reverse_is_worse(bench: Bench) -> tuple[str, str, bool]:
    """O12: a curriculum backwards is worse than forwards."""
    plan = RECIPES["conv3d-curriculum"].plan
    back = bench.train("reverse", plan.epochs, plan.objective, plan.threats[0], schedule="reverse")
    forth, back_score = bench.score(rv.load_model("conv3d-curriculum"), linf(8)), bench.score(back, linf(8))
    return "a curriculum backwards is worse", f"{forth}; {back_score}, at 8/255", back_score.robust < forth.robust


def one_step_collapses(bench: Bench) -> tuple[str, str, bool]:
    """One full step without noise overfits catastrophically, the alarm says so, and N-FGSM at that radius does not.

    A small network on many clips does not collapse; on 300 clips, with many small updates, it does.
    """
    told, alarmed = [], []
    for name, objective in (("fgsm-few", "fgsm:noise=0,step_size=1"), ("n-fgsm-few", "n-fgsm")):
        threats = (COLLAPSE.describe(),)
        plan = rv.TrainingPlan(40, batch_size=8, weight_decay=0.0, objective=objective, threats=threats)
        model = bench.follow(name, plan, clips=300)
        history = bench.history(name)
        past = [history[: number + 1] for number in range(len(history))]
        raised = [h[-1]["epoch"] for h in past if any(alarm.startswith("catastrophic") for alarm in alarms(h))]
        best = model.card.lineage[-1]["selected"]["epoch"]
        epochs = ", ".join(f"{r['val/robust_acc']:.0%} ({r['val/fgsm_acc']:.0%})" for r in history)
        told.append(
            f"{name}: PGD-10 (FGSM) on held-out clips by epoch {epochs}; alarm at epochs {raised}, kept epoch {best}; "
            f"{bench.score(model, COLLAPSE)}"
        )
        alarmed.append(bool(raised))
    return "one step without noise collapses, N-FGSM does not", "; ".join(told), alarmed == [True, False]


CLAIMS = {
    "O1": natural_falls,
    "O2": pgd_gains,
    "O3": radius_costs,
    "O6": threats_differ,
    "O12": reverse_is_worse,
    "collapse": one_step_collapses,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure the claims and print one line for each."""
    parser = command_line("trained", __doc__)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--out", type=Path, default=Path("trained"))
    given = parser.parse_args(arguments)
    bench = Bench(given.clips, given.out)
    lines = []
    for name in given.only:
        claim, told, holds = CLAIMS[name](bench)
        lines.append(f"| {name} | {claim} | {told} | {'yes' if holds else '**no**'} |")
        print(lines[-1], flush=True)
    print("\n| | claim | measured | holds |\n|---|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
    main()
