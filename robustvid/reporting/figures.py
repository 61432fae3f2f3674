"""Figures: robust accuracy against the budget, as SVG, PNG and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from robustvid.errors import RunError
from robustvid.evaluation.results import WORST, Results
from robustvid.reporting.filmstrip import draw_filmstrip, telling_clip
from robustvid.reporting.panels import Panel, cell_edges, line_colours, panels, ticks

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("", (4, 1.5), (1, 1), (3, 1, 1, 1), (5, 1, 1, 1, 1, 1))
CONTOURS = {25: ":", 50: "-", 75: "--"}  # lines of equal accuracy on a surface
_INK = "#3c4250"


def write_figures(results: Results, folder: str | Path) -> list[Path]:
    """Draw every threat of a run: curves, or a heat map where two radii vary.

    Args:
        results: the run.
        folder: where ``<threat>.svg``, ``.png`` and ``.csv`` go; made where it does not exist.

    Returns:
        The files written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write_csv(results, threat, folder) for threat in results.threats]
    for panel in panels(results):
        written += _write_panel(results, panel, folder)
    return written


def draw_panel(axes: Any, panel: Panel, model: str) -> None:
    """Draw a panel into matplotlib axes; ``model`` gives the worst case its colour."""
    if panel.surface:
        _draw_surface(axes, panel)
    else:
        _draw_curves(axes, panel, line_colours(panel, model))


def write_readme_picture(results: Results, path: str | Path) -> Path:
    """Draw the run as one picture, 1600 pixels wide: curves on the left, one attacked clip on the right.

    Args:
        results: the run; without kept clips the curves fill the picture.
        path: the PNG file.

    Raises:
        RunError: no clip is finished yet.
    """
    from matplotlib.figure import Figure

    path, found = Path(path), panels(results)
    if not found:
        raise RunError(f"{results.folder} has nothing to draw yet: no clip is finished")
    model, data = results.spec["model"]["name"], results.spec["data"]["name"]
    panel = next((panel for panel in found if not panel.surface), found[0])
    evidence = telling_clip(results, panel.threat)
    with drawing_style():
        figure = Figure(figsize=(8, 3.5), layout="constrained")
        left, *right = figure.subfigures(1, 2 if evidence else 1, squeeze=False).flat
        axes = left.add_subplot()
        draw_panel(axes, panel, model)
        axes.set_title(f"{model} on {data}: {panel.title}", loc="left", parse_math=False)
        if evidence:
            draw_filmstrip(right[0], evidence, results.spec["model"]["classes"])
        figure.savefig(path, dpi=200, metadata={"Title": "robustvid", "Description": panel.describe()})
    return path


@contextmanager
def drawing_style() -> Iterator[None]:
    """Set fonts and grid for the drawings made inside, and for no others."""
    import matplotlib as mpl
    import seaborn as sns

    style = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.85)
    own = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "robustvid",  # the same run gives the same file
        "font.sans-serif": ["DejaVu Sans"],
        "grid.color": "#e3e6eb",
        "axes.edgecolor": "#aab0bb",
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style | own):
        yield


def _write_csv(results: Results, threat: str, folder: Path) -> Path:
    path = folder / f"{threat}.csv"
    curves = [results.curve(threat, attack) for attack in [WORST, *results.attacks]]
    pd.concat(curves).to_csv(path, index=False)
    return path


def _write_panel(results: Results, panel: Panel, folder: Path) -> list[Path]:
    from matplotlib.figure import Figure

    with drawing_style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        draw_panel(axes, panel, results.spec["model"]["name"])
        data = results.spec["data"]
        axes.set_title(f"{results.subject} on {data['name']}: {panel.title}", loc="left", parse_math=False)
        svg, png = folder / f"{panel.name}.svg", folder / f"{panel.name}.png"
        figure.savefig(svg, metadata={"Title": panel.title, "Description": panel.describe(), "Date": None})
        figure.savefig(png, dpi=200, metadata={"Title": panel.title, "Description": panel.describe()})
    label_svg(svg, panel.describe())
    return [svg, png]


def label_svg(path: Path, words: str) -> None:
    """Tell screen readers what an SVG file shows."""
    label = f'<svg role="img" aria-label="{escape(words)}" '
    path.write_text(path.read_text(encoding="utf-8").replace("<svg ", label, 1), encoding="utf-8")


def _draw_curves(axes: Any, panel: Panel, colours: list[str]) -> None:
    import seaborn as sns

    labels = [line.label for line in panel.lines]
    drawn = pd.concat(
        [line.points.assign(label=line.label, place=_places(panel, line.points.x)) for line in panel.lines]
    )
    sns.lineplot(
        drawn.assign(per_cent=100 * drawn.acc),
        x="place",
        y="per_cent",
        hue="label",
        style="label",
        size="label",
        palette=dict(zip(labels, colours, strict=True)),
        markers={label: MARKERS[number % len(MARKERS)] for number, label in enumerate(labels)},
        dashes={label: DASHES[number % len(DASHES)] for number, label in enumerate(labels)},
        sizes={label: 2.8 if line.worst else 1.1 for label, line in zip(labels, panel.lines, strict=True)},
        errorbar=None,
        zorder=3,
        clip_on=False,
        ax=axes,
    )
    worst = panel.lines[0].points
    axes.fill_between(_places(panel, worst.x), 100 * worst.lo, 100 * worst.hi, color=colours[0], alpha=0.18, lw=0)
    axes.axhline(100 * panel.chance, color="#6b7280", linestyle=":", linewidth=1.2, zorder=1)
    _label_curves(axes, panel, worst)


def _label_curves(axes: Any, panel: Panel, worst: pd.DataFrame) -> None:
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.set_xticks(_places(panel, worst.x), [f"{value:g}" for value in worst.x])
    axes.set_xlabel(panel.axes[0].label)
    axes.set_ylabel("robust accuracy, %")
    axes.annotate(
        "chance", (0, 100 * panel.chance), (4, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
        fontsize="small", color="#6b7280",
    )  # fmt: skip
    axes.legend(title=f"n = {worst.n.iloc[0]}, band: 95 %", frameon=False, fontsize="small", title_fontsize="small")


def _places(panel: Panel, values: pd.Series) -> list[float]:
    """Return positions of values on the panel's x axis."""
    measured = list(panel.lines[0].points.x)
    place = dict(zip(measured, ticks(measured)[0], strict=True))
    return [place[value] for value in values]


def _draw_surface(axes: Any, panel: Panel) -> None:
    import seaborn as sns

    grid = 100 * panel.lines[0].points.pivot_table(index="y", columns="x", values="acc").sort_index(ascending=False)
    sns.heatmap(
        grid,
        vmin=0,
        vmax=100,
        cmap="viridis",
        annot=True,
        fmt=".0f",
        cbar_kws={"label": "robust accuracy, %"},
        ax=axes,
    )
    axes.set_xticklabels([f"{value:g}" for value in grid.columns])
    axes.set_yticklabels([f"{value:g}" for value in grid.index], rotation=0)
    axes.set_xlabel(panel.axes[0].label)
    axes.set_ylabel(panel.axes[1].label)
    scale = axes.collections[0].colorbar
    scale.set_ticks([0, *CONTOURS, 100])
    for level, dash in CONTOURS.items():
        scale.ax.axhline(level, color="white", linewidth=2, linestyle=dash)
        for x, y in cell_edges(grid.to_numpy() >= level):
            axes.plot(x, y, color="white", linewidth=2.6, linestyle=dash)
