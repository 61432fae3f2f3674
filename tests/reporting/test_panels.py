"""Panels: axes, lines, scales and the two scalars of a curve."""

import subprocess
import sys

import pandas as pd
import pytest

import robustvid as rv
from robustvid.reporting.panels import COLOURS, GREY, area, cell_edges, line_colours, median_radius, panels, ticks


def test_a_threat_with_one_radius_is_a_curve_from_zero_in_native_units(results):
    first, second = panels(results)
    assert list(first.lines[0].points.x) == [0, 0.5, 1, 2, 4]
    assert first.axes[0].label.endswith("1/255")
    assert list(second.lines[0].points.x) == [0, 0.05, 0.2]
    assert [line.name for line in first.lines] == ["worst", "fgsm", "pgd:steps=3"]


def test_lines_are_the_curves_of_the_results(results):
    for panel in panels(results):
        for line in panel.lines:
            pd.testing.assert_series_equal(line.points.acc, results.curve(panel.threat, line.name).acc)


def test_two_varying_radii_are_a_surface_and_no_limit_means_all_frames(surface):
    (panel,) = panels(surface)
    assert panel.surface
    assert [axis.column for axis in panel.axes] == ["eps_frame", "frames"]
    assert set(panel.lines[0].points.y) == {1, 2, 4}
    assert len(panel.lines[0].points) == 12


def test_a_threat_in_which_only_frames_vary_has_frames_on_the_axis(frames_only):
    (panel,) = panels(frames_only)
    assert not panel.surface
    assert list(panel.lines[0].points.x) == [0, 1, 2, 4]
    assert "ε = 2/255" in panel.title


def test_three_varying_radii_give_a_surface_for_each_number_of_frames(measure):
    budgets = [rv.Budget("l2", f, c, k) for f in (0.1, 0.2) for c in (0.1, 0.3) for k in (1, 2)]
    found = panels(measure("cube", "fgsm", budgets))
    assert [panel.name for panel in found] == ["l2-frame-clip-k-1", "l2-frame-clip-k-2"]
    assert [len(panel.lines[0].points) for panel in found] == [4, 4]
    assert all(panel.surface for panel in found)


def test_in_a_battery_the_last_line_is_the_worst_case(measure):
    (panel,) = panels(measure("battery", rv.load_battery("quick"), [rv.Budget("linf", "1/255")]))
    assert [line.label for line in panel.lines] == ["worst case", "fgsm", "fgsm + mi-fgsm"]


def test_nothing_is_drawn_of_a_run_without_measurements(unmeasured):
    assert panels(unmeasured) == []


@pytest.mark.parametrize("grid", [[0, 1, 2, 4, 8], [0, 1, 2, 3], list(range(17)), [0, 5]])
def test_an_axis_is_linear_while_ticks_stay_apart(grid):
    assert ticks(grid) == (grid, False)


def test_area_and_median():
    points = pd.DataFrame({"x": [0.0, 1.0, 3.0], "acc": [1.0, 0.5, 0.0]})
    assert area(points) == pytest.approx((0.75 + 0.5) / 3)
    assert median_radius(points) == 1.0
    assert median_radius(points.assign(acc=0.6)) is None


def test_edges_lie_between_true_and_false_cells():
    above = pd.DataFrame([[True, False], [True, True]]).to_numpy()
    assert cell_edges(above) == [((1, 1), (0, 1)), ((1, 2), (1, 1))]


def test_colours_run_out_into_grey(results):
    panel = panels(results)[0]
    many = type(panel)(**(panel.__dict__ | {"lines": panel.lines * 4}))
    colours = line_colours(many, "toy")
    assert set(colours[:6]) == set(COLOURS)
    assert colours[6:] == [GREY] * 6


def test_importing_the_package_is_cheap():
    code = "import robustvid.reporting, sys; print({'torch', 'mlflow', 'seaborn', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
