"""Figures: files, numbers, alt text, and a matplotlib that stays the user's."""

import struct
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest

from robustvid.errors import RunError
from robustvid.reporting.figures import write_figures, write_readme_picture


@pytest.fixture(scope="module")
def drawn(results, tmp_path_factory):
    """Return the folder of a run's figures, drawn once."""
    folder = tmp_path_factory.mktemp("run") / "figures"
    write_figures(results, folder)
    return folder


def _text(path):
    return " ".join(ET.parse(path).getroot().itertext())


def test_each_threat_gets_svg_png_and_csv(drawn):
    names = {f"{threat}.{kind}" for threat in ("linf-frame", "l2-clip") for kind in ("svg", "png", "csv")}
    assert {path.name for path in drawn.iterdir()} == names


def test_the_csv_holds_the_numbers_of_every_curve(results, drawn):
    table = pd.read_csv(drawn / "linf-frame.csv", dtype={"eps_frame": str})
    for attack in ("worst", "fgsm", "pgd:steps=3"):
        mine, true = table[table.attack == attack], results.curve("linf-frame", attack)
        assert list(mine.eps_frame) == list(true.eps_frame)
        for column in ("n", "correct", "acc", "lo", "hi"):
            assert list(mine[column]) == pytest.approx(list(true[column]))


def test_the_svg_is_text_with_alt_text_made_from_the_data(results, drawn):
    root = ET.parse(drawn / "linf-frame.svg").getroot()
    assert root.get("role") == "img"
    assert f"clean {100 * results.clean['acc']:.1f} %" in root.get("aria-label")
    assert "robust accuracy, %" in _text(drawn / "linf-frame.svg")


def test_a_second_drawing_is_the_same_and_leaves_matplotlib_alone(results, drawn, tmp_path):
    before = dict(mpl.rcParams)
    written = write_figures(results, tmp_path)
    assert {path.name for path in written} == {path.name for path in drawn.iterdir()}
    assert (tmp_path / "l2-clip.svg").read_bytes() == (drawn / "l2-clip.svg").read_bytes()
    assert dict(mpl.rcParams) == before


def test_a_surface_is_a_heat_map_that_shows_every_cell(surface, tmp_path):
    write_figures(surface, tmp_path)
    shown = _text(tmp_path / "linf-frame-k.svg")
    for share in surface.curve("linf-frame-k").acc[1:]:
        assert f"{100 * share:.0f}" in shown
    assert "frames that may change, of 4" in shown


def test_hostile_names_stay_text(hostile, tmp_path):
    write_figures(hostile, tmp_path)
    root = ET.parse(tmp_path / "linf-frame.svg").getroot()
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_the_readme_picture_is_1600_pixels_wide(results, tmp_path):
    path = write_readme_picture(results, tmp_path / "picture.png")
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert (width, height) == (1600, 700)


def test_the_readme_picture_of_an_empty_run_is_refused(unmeasured, tmp_path):
    with pytest.raises(RunError, match="nothing to draw"):
        write_readme_picture(unmeasured, tmp_path / "picture.png")
