"""What MLflow is told of a run: names, params, tags and metrics, schema 1.

One MLflow run is one (model, data, suite, seed). A curve is one metric; its step is 1000 times the radius in the unit
of the threat's axis (1/255 for linf, pixels for l2, frames), and ``x_eps/<threat>`` holds the exact radii.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from robustvid.errors import RunError
from robustvid.evaluation.results import WORST, Results
from robustvid.reporting.panels import COLOURS, Panel, area, median_radius, model_colour, panels, rows

SCHEMA = "1"
CURVES, RADII = "robust_acc", "x_eps"
_NOTE = (
    "Robust accuracy of video classifiers. The step of a curve is 1000 times the radius (in 1/255 for linf, in frames "
    "where their number varies); choose the view *robustvid: accuracy against epsilon* for exact radii."
)


class Point(NamedTuple):
    """One value of one metric."""

    key: str
    value: float
    step: int


def experiment_name(results: Results) -> str:
    """Return the experiment that comparable runs share: the data, and the battery or the attacks."""
    suite = (results.spec["battery"] or "+".join(results.attacks)).replace("@", ".v")
    return f"robustvid-{plain_name(results.spec['data']['name'])}-{plain_name(suite)}"[:250]


def run_name(results: Results) -> str:
    """Return the model's name, which is the legend of every chart; surrogates and further seeds are told apart."""
    seed = results.spec["seed"]
    through = f" through {results.surrogate}" if results.surrogate else ""
    return f"{results.spec['model']['name']}{through}{f'·s{seed}' if seed else ''}"


def experiment_tags() -> dict[str, str]:
    """Return what is set on the experiment."""
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": _NOTE,
        "robustvid.schema": SCHEMA,
    }


def run_tags(results: Results) -> dict[str, str]:
    """Return what is set on the run; ``robustvid.run_id`` finds it again."""
    flags = [f"{flag['flag']}: {flag['detail']}" for flag in results.flags]
    described = [panel.describe() for panel in panels(results)]
    return {
        "robustvid.run_id": results.key,
        "robustvid.kind": "attack-sweep",
        "robustvid.spec_sha256": hashlib.sha256(_json(results.spec)).hexdigest(),
        "robustvid.numbers": hashlib.sha256(_json(metrics(results))).hexdigest()[:16],
        "robustvid.status": _status(results),
        "robustvid.engine": "local",
        "mlflow.note.content": "\n\n".join([*(f"**Flag** {flag}" for flag in flags), *described])[:5000],
        "mlflow.source.name": "robustvid",
    }


def params(results: Results) -> dict[str, str]:
    """Return the settings that runs are compared by."""
    spec = results.spec
    clip = spec["model"]["clip"]
    given = {
        "model": spec["model"]["name"],
        "arch": spec["model"]["arch"],
        "weights_sha256": spec["model"]["weights"],
        "data": spec["data"]["name"],
        "split": spec["data"]["split"],
        "n_clips": spec["data"]["clips"],
        "frames": clip["frames"],
        "stride": clip["stride"],
        "size": "x".join(map(str, clip["size"])),
        "suite": spec["battery"] or "none",
        "threats": ", ".join(results.threats),
        "attacks": ", ".join(results.attacks),
        "steps": _settings(spec, "steps"),
        "restarts": _settings(spec, "restarts"),
        "strategy": spec["strategy"],
        "seed": spec["seed"],
        "precision": spec.get("precision", "exact"),
        "robustvid_version": spec["robustvid"],
    }
    budgets = {f"eps.{threat.name}": ", ".join(b.describe() for b in threat.budgets) for threat in results.plan.threats}
    through = {"surrogate": results.surrogate} if results.surrogate else {}
    return {key: str(value)[:6000] for key, value in (given | through | budgets).items()}


def metrics(results: Results) -> list[Point]:
    """Return every curve, and the scalars that the table of runs shows.

    Raises:
        RunError: no clip was measured yet, so that there is no number to log.
    """
    if results.n == 0:
        raise RunError(f"{results.folder} holds no measurement yet")
    clean, cost = results.clean, results.cost
    device = "gpu" if results.spec["device"] == "cuda" else results.spec["device"]
    scalars = {
        "clean_acc": clean["acc"],
        "n_judged": results.n,
        f"{device}_seconds": cost["seconds"],
        "forwards": cost["forwards"],
        "backwards": cost["backwards"],
    }
    points = [Point(key, float(value), 0) for key, value in scalars.items()]
    for panel in panels(results):
        points += _surface_points(panel) if panel.surface else _curve_points(panel)
    return points


def free_colour(model: str, taken: dict[str, str]) -> str:
    """Return the model's colour, or another one where a different model of the experiment already has it.

    Args:
        model: name of the model.
        taken: the colour of each model that was logged before.
    """
    if model in taken:
        return taken[model]
    own = model_colour(model)
    return next((colour for colour in (own, *COLOURS) if colour not in taken.values()), own)


def _curve_points(panel: Panel) -> list[Point]:
    worst = panel.lines[0].points
    steps = _steps(list(worst.x))
    name, radii = _key(panel.name), list(zip(steps, worst.x, strict=True))
    points = [Point(f"{RADII}/{name}", float(x), step) for step, x in radii]
    for line in panel.lines:
        key = f"{CURVES}/{name}/{_key(line.name)}"
        points += [Point(key, float(acc), step) for step, acc in zip(steps, line.points.acc, strict=True)]
    points.append(Point(f"aurc_{name}", area(worst), 0))
    median = median_radius(worst)
    return points + ([] if median is None else [Point(f"median_eps_{name}", median, 0)]) + _anchors(panel)


def _surface_points(panel: Panel) -> list[Point]:
    """Return one curve of the worst case for every value of the second axis."""
    points, name = _anchors(panel), _key(panel.name)
    measured = panel.lines[0].points.drop_duplicates(["x", "y"], keep="last").sort_values("x")
    radii = [0.0, *sorted(set(measured.x))]
    steps = dict(zip(radii, _steps(radii), strict=True))
    points += [Point(f"{RADII}/{name}", x, step) for x, step in steps.items()]
    short = {"frames": "k", "eps_clip": "clip"}[panel.axes[1].column]
    for y, row in measured.groupby("y"):
        key = f"{CURVES}/{name}/{WORST}-{short}{y:g}"
        curve = [(0.0, panel.clean), *zip(row.x, row.acc, strict=True)]
        points += [Point(key, float(acc), steps[x]) for x, acc in curve]
    return points


def _anchors(panel: Panel) -> list[Point]:
    """Return the worst case at every budget as a column of its own: ``robust_acc_at_linf-frame_8-255``."""
    worst = panel.lines[0].points
    return [
        Point(f"robust_acc_at_{_key(panel.name)}_{_budget(row)}", float(row.acc), 0)
        for row in rows(worst[worst.cell >= 0])
    ]


def _budget(row: Any) -> str:
    limit = None if row.frames is None else f"k{row.frames}"
    return "_".join(_key(part) for part in (row.eps_frame, row.eps_clip, limit) if part)


def _steps(radii: list[float]) -> list[int]:
    """Return whole numbers that rise with the radii, also where they differ by less than a thousandth."""
    steps: list[int] = []
    for radius in radii:
        step = round(1000 * radius)
        steps.append(max(step, steps[-1] + 1) if steps else step)
    return steps


def _status(results: Results) -> str:
    if not results.complete:
        return "partial"
    return "flagged" if results.flags else "complete"


def _settings(spec: dict[str, Any], name: str) -> str:
    attacks = [attack for group in spec["attacks"] for attack in group]
    return ", ".join(f"{attack['name']} {attack['params'][name]}" for attack in attacks if name in attack["params"])


def _key(text: str) -> str:
    """Return text that MLflow takes inside a metric's name; a slash would start a new section."""
    return re.sub(r"[^A-Za-z0-9_.: -]+", "-", text)


def plain_name(text: str) -> str:
    """Return a name of letters, digits and a few signs, which every part of MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
