"""The view that MLflow's page opens with: robust accuracy against the exact radius, one line for each model.

The format is MLflow's own and undocumented: the state of its page as JSON, compressed. Where another version does not
understand it, the page falls back to its default charts, which are right too, with steps on the x axis.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

from robustvid.evaluation.results import WORST
from robustvid.reporting.mlflow_schema import CURVES, RADII

VIEW = "robustvid"
TAG = f"mlflow.sharedViewState.{VIEW}"
NAME = "robustvid: accuracy against epsilon"
_MADE = 1_767_225_600_000  # a fixed time, so that writing the same view again changes nothing
_LIMIT = 20_000  # characters that MLflow's page accepts


def view_tag(metric_keys: Iterable[str]) -> str | None:
    """Return the value of the experiment's view tag; None where it would be too long.

    Args:
        metric_keys: the metrics of all runs of the experiment.
    """
    keys = sorted(set(metric_keys))
    curves = sorted((key for key in keys if key.startswith(f"{CURVES}/")), key=_order)
    columns = [f"metrics.`{key}`" for key in keys if key.startswith(("aurc_", "median_eps_"))]
    sections = [_section("worst", "Worst case against epsilon"), _section("single", "Single attacks")]
    hidden = [_section(name, name, display=False) for name in (RADII, "Model metrics")]
    state = _STATE | {
        "selectedColumns": [*_COLUMNS, *columns],
        "compareRunCharts": [_chart(key, sections[0 if _is_worst(key) else 1]["uuid"]) for key in curves],
        "compareRunSections": sections + hidden,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    value = json.dumps({"name": NAME, "createdAt": _MADE, "updatedAt": _MADE, "state": f"deflate;{packed}"})
    return value if len(value) <= _LIMIT else None


_COLUMNS = ["params.`n_clips`", "tags.`robustvid.status`", "metrics.`clean_acc`"]
_STATE: dict[str, Any] = {
    "runsHiddenMode": "FIRST_20_RUNS",
    "isAccordionReordered": True,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": None,
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}


def _section(uuid: str, name: str, *, display: bool = True) -> dict[str, Any]:
    return {"uuid": f"robustvid-{uuid}", "name": name, "display": display, "isReordered": True, "columns": 2}


def _chart(key: str, section: str) -> dict[str, Any]:
    threat = key.split("/")[1]
    return {
        "type": "LINE",
        "uuid": f"robustvid-{key}",
        "metricSectionId": section,
        "metricKey": key,
        "selectedMetricKeys": [key],
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": f"{RADII}/{threat}",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {"yMin": 0, "yMax": 1.04},
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "displayPoints": True,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "ignoreOutliers": False,
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
    }


def _is_worst(key: str) -> bool:
    return key.rpartition("/")[2].startswith(WORST)


def _order(key: str) -> tuple[bool, bool, str]:
    """Put the worst case first, and threats of every frame before others."""
    return not _is_worst(key), "frame" not in key, key
