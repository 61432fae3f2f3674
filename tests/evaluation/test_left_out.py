"""Videos that cannot be read: stop and keep everything, or leave them out and say so."""

import json
import os

import pytest
import torch
from fakes import FakeVideos

import robustvid as rv
from robustvid.data.decode import write_video
from robustvid.data.folder import FolderDataset
from robustvid.errors import DataError, DecodeError
from robustvid.evaluation.results import LEFT_OUT, Results
from robustvid.reporting.page import write_report
from robustvid.reporting.terminal import print_results

BUDGETS = [rv.Budget("linf", f"{n}/255") for n in (4, 64)]


@pytest.fixture
def videos(tmp_path):
    """Twelve videos, three of each class; one of "b" and one of "c" are broken."""
    for number in range(12):
        path = tmp_path / "videos" / FakeVideos.classes[number % 4] / f"{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(number)
        write_video(path, torch.randint(0, 256, (6, 16, 16, 3), generator=generator, dtype=torch.uint8), 12)
        if number in {5, 6}:
            path.write_text("<script>no video</script>")
    return FolderDataset(tmp_path / "videos")


def measure(model, data, **settings):
    return rv.evaluate(model, data, "pgd:steps=2", BUDGETS, **settings)


def test_what_cannot_be_read_stops_the_run_and_nothing_is_lost(tiny_model, videos, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DecodeError, match=r"0[56]\.mp4"):
        measure(tiny_model, videos, out=out)
    results = measure(tiny_model, videos, out=out, on_error="skip")
    assert results.complete
    assert results.n == 10


def test_what_is_left_out_is_listed_and_counted_nowhere(tiny_model, videos, caplog):
    results = measure(tiny_model, videos, on_error="skip")
    assert results.complete
    assert (results.curve()["n"] == 10).all()
    left = results.summary()["left_out"]
    assert sorted(entry["file"].rpartition("/")[2] for entry in left) == ["05.mp4", "06.mp4"]
    assert all("Invalid data" in entry["reason"] for entry in left)
    assert caplog.text.count("left out: cannot read") == 2
    whole = {row.sample: row.margin for row in results.rows}
    sound = [index for index in range(12) if videos.ids[index].rpartition("/")[2] not in {"05", "06"}]
    alone = measure(tiny_model, Only(videos, sound), out="alone")
    assert {row.sample: row.margin for row in alone.rows} == whole


def test_names_that_are_no_utf8_are_shown_with_escapes(tiny_model, videos, tmp_path):
    """Old archives hold such names; Linux takes any bytes but a slash."""
    for path in list((tmp_path / "videos").rglob("*.mp4")):
        try:
            path.rename(os.fsdecode(os.fsencode(path).replace(b".mp4", b"\xff.mp4")))
        except OSError:
            pytest.skip("this file system wants names in UTF-8")
    results = measure(tiny_model, FolderDataset(tmp_path / "videos"), on_error="skip")
    assert results.n == 10
    assert all(row.sample.endswith("\\udcff") for row in results.rows)
    assert sorted(entry["file"].rpartition("/")[2] for entry in results.left_out) == ["05\\udcff.mp4", "06\\udcff.mp4"]
    assert "05\\udcff.mp4" in write_report(results).read_text(encoding="utf-8")


def test_a_mended_video_is_measured_by_the_same_command(tiny_model, videos):
    measure(tiny_model, videos, on_error="skip")
    for index, id_ in enumerate(videos.ids):
        if id_ in {"b/05", "c/06"}:
            videos.path(index).write_bytes(videos.path(0).read_bytes())
    results = measure(tiny_model, videos, on_error="skip")
    assert (results.n, results.complete, results.left_out) == (12, True, [])


def test_a_run_of_nothing_is_an_error(tiny_model, videos):
    for index in range(len(videos)):
        videos.path(index).write_text("no video")
    with pytest.raises(DataError, match="not one of the first"):
        measure(tiny_model, videos, on_error="skip")
    with pytest.raises(rv.errors.UnknownNameError, match="skip"):
        measure(tiny_model, videos, on_error="ignore")


def test_the_terminal_and_the_report_say_so(tiny_model, videos):
    from rich.console import Console

    results = measure(tiny_model, videos, on_error="skip")
    (results.folder / LEFT_OUT).write_text(json.dumps([{"file": "<b>x.mp4", "reason": '"><script>'}]))
    results = Results(results.folder)
    console = Console(record=True, width=100)
    print_results(results, console)
    assert "1 of 12 videos cannot be read and are left out" in console.export_text()
    page = write_report(results).read_text()
    assert "1 of 12 videos cannot be read" in page
    assert "<b>x.mp4" not in page


class Only:
    """Some of the videos of another dataset."""

    name, split = "only", "test"

    def __init__(self, data, indices):
        self.data, self.indices, self.classes = data, indices, data.classes

    def __len__(self):
        return len(self.indices)

    def sample(self, index, clip):
        return self.data.sample(self.indices[index], clip)
