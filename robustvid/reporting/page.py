"""The page of a run: one offline HTML file with curves, tables, flags, clips and the command that repeats it."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from robustvid.evaluation.results import Results
from robustvid.reporting import chart as charts
from robustvid.reporting.flags import meaning
from robustvid.reporting.panels import model_colour, panels
from robustvid.reporting.sprites import playable_clips
from robustvid.reporting.terminal import skipping

_TEMPLATES = Path(__file__).parent / "templates"
_PLAYER_FACTS = ("frames", "columns", "width", "height", "rms", "peaks")


def write_report(results: Results) -> Path:
    """Write ``report.html`` into the run folder: one file that needs neither network nor server.

    Args:
        results: the run, complete or not.

    Returns:
        The path of the page.

    Raises:
        RunError: a kept clip is damaged.
    """
    path = results.folder / "report.html"
    temporary = path.with_name(".report.html")
    temporary.write_text(_render(results), encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)
    return path


def repeat_command(results: Results) -> str:
    """Return what to type to measure the same again: the command of the run, or Python that does the same."""
    command = results.environment.get("command")
    return shlex.join(command) if command else _python(results.spec)


def _render(results: Results) -> str:
    model, clips = results.spec["model"]["name"], playable_clips(results)
    return render_page(
        "report",
        results=results,
        spec=results.spec,
        colour=model_colour(model),
        charts=[charts.chart(panel, model) for panel in panels(results)],
        frame=charts,
        skipping=skipping(results) if results.audit["checked"] else None,
        tables=[number_table(results, threat) for threat in results.threats],
        flags=explained(results),
        survival=results.survival,
        clips=clips,
        clip_facts=player_facts(clips),
        command=repeat_command(results),
        environment=results.environment,
    )


def render_page(name: str, **context: Any) -> str:
    """Return the page of a template: one file whose style and script are those of the template and the shared parts.

    Args:
        name: of ``NAME.html.j2`` and, if there are any, ``NAME.css`` and ``NAME.js``.
        **context: what the template shows; escaped.
    """
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (
        "\n".join(file.read_text(encoding="utf-8") for file in _files(name, kind) if file.is_file())
        for kind in ("css", "js")
    )
    page = templates.get_template(f"{name}.html.j2")
    return page.render(style=style, script=script, policy=_policy(style, script), **context)


def _files(name: str, kind: str) -> list[Path]:
    return [_TEMPLATES / f"{part}.{kind}" for part in ("parts", name)]


def explained(results: Results) -> list[dict[str, str]]:
    """Return the flags of a run with their meaning."""
    return [flag | {"meaning": meaning(flag["flag"])} for flag in results.flags]


def player_facts(clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the player in the page has to know of each clip."""
    return [{name: clip[name] for name in _PLAYER_FACTS} for clip in clips]


def _policy(style: str, script: str) -> str:
    """Return the content security policy: nothing is fetched, and only this style and this script run."""
    digests = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    rules = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    return "; ".join([*rules, f"style-src 'sha256-{digests[0]}'", f"script-src 'sha256-{digests[1]}'"])


def number_table(results: Results, threat: str) -> dict[str, Any]:
    """Return what the template's table of numbers needs: one line a budget, and what each attack broke."""
    table, broken = results.table(), results.broken_by(threat)
    lines = table[table.threat == threat].to_dict("records")
    for place, line in enumerate(lines):
        line["broken"] = [counts[place - 1] if place else None for counts in broken.values()]
    return {"threat": threat, "attacks": list(broken), "lines": lines}


def _python(spec: dict[str, Any]) -> str:
    names = [attack["name"] for group in spec["attacks"] for attack in group]
    battery = spec["battery"]
    attacks = f'rv.load_battery("{battery}")' if battery else json.dumps(names)
    budgets = ",\n        ".join(_budget(table) for table in spec["budgets"])
    surrogate = (
        f"\n    surrogate=rv.load_model({json.dumps(spec['surrogate']['name'])})," if "surrogate" in spec else ""
    )
    settings = f"limit={spec['data']['clips']}, seed={spec['seed']}, strategy={json.dumps(spec['strategy'])}"
    settings += f", precision={json.dumps(spec.get('precision', 'exact'))}"
    return f"""import robustvid as rv

results = rv.evaluate(
    rv.load_model({json.dumps(spec["model"]["name"])}),
    rv.load_data({json.dumps(spec["data"]["name"])}, split={json.dumps(spec["data"]["split"])}),
    {attacks},
    [
        {budgets},
    ],{surrogate}
    {settings}, device={json.dumps(spec["device"])},
)"""


def _budget(table: dict[str, Any]) -> str:
    names = {"eps_frame": "frame", "eps_clip": "clip", "frames": "frames"}
    given = [f"{name}={json.dumps(table[key])}" for key, name in names.items() if table[key] is not None]
    return f"rv.Budget({json.dumps(table['norm'])}, {', '.join(given)})"
