"""What survives storage: counts are of the clips that fell, and the run and its report hold them."""

import json

import pytest
import torch

import robustvid as rv
from robustvid.errors import DataError, RunError
from robustvid.evaluation.evidence import Evidence, read_clips
from robustvid.evaluation.survival import drop, survival, treatments
from robustvid.reporting.page import write_report

FRAMES = torch.randint(0, 256, (8, 17, 21, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", treatments())
def test_a_treatment_returns_frames_of_the_same_shape(name):
    treated = treatments()[name](FRAMES)
    assert treated.shape == FRAMES.shape
    assert treated.dtype == torch.uint8
    assert torch.equal(treated, FRAMES) == (name == "8 bits")


def test_a_stronger_compression_changes_more():
    smooth = (torch.arange(64).view(1, 8, 8, 1) * 3).expand(4, 8, 8, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    far = [
        (treatments()[f"H.264, CRF {crf}"](smooth.to(torch.uint8)).int() - smooth).abs().float().mean()
        for crf in (18, 28)
    ]
    assert 0 < far[0] < far[1] < 20


def test_a_lost_frame_shows_the_one_before():
    frames = torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1).expand(9, 2, 2, 3)
    assert drop(frames)[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 4, 5, 6, 6, 8]


def bright(clips):
    """Class 1 where a clip is bright."""
    level = clips.mean((1, 2, 3, 4))
    return torch.stack([0.5 - level, level - 0.5], 1)


def evidence(clean, adversarial, label, *, robust, index=0, threat="linf-frame"):
    def level(value):
        return torch.full((3, 4, 16, 16), value)

    row = {"label": label, "robust": robust, "index": index}
    return Evidence(row, threat, (255 * level(clean)).to(torch.uint8), level(adversarial))


def test_only_clips_that_fell_are_counted():
    kept = [
        evidence(0.2, 0.7, 0, robust=False, index=0),  # far over the border: stays wrong
        evidence(0.2, 0.5005, 0, robust=False, index=1),  # rounds back to 0.502: stays wrong as well
        evidence(0.2, 0.2, 0, robust=True, index=2),
        evidence(0.7, 0.4, 1, robust=False, index=3),
    ]
    (found,) = survival(bright, kept, torch.device("cpu"))
    assert (found["threat"], found["n"]) == ("linf-frame", 3)
    plain = {one["name"]: one for one in found["treatments"]}["8 bits"]
    assert plain == {"name": "8 bits", "still": 3, "right": 3}
    assert survival(bright, kept[2:3], torch.device("cpu")) == []


def test_threats_are_counted_apart_and_a_clean_clip_is_looked_at_once():
    asked = []

    def model(clips):
        asked.append(len(clips))
        return bright(clips)

    kept = [
        evidence(0.2, 0.7, 0, robust=False, index=5, threat="linf-frame"),
        evidence(0.2, 0.8, 0, robust=False, index=5, threat="l2-clip"),
        evidence(0.3, 0.7, 0, robust=False, index=6, threat="l2-clip"),
        evidence(0.7, 0.1, 0, robust=False, index=7, threat="l2-clip"),  # the clean clip is wrong, the other is not
    ]
    l2, linf = survival(model, kept, torch.device("cpu"))
    assert [(found["threat"], found["n"]) for found in (l2, linf)] == [("l2-clip", 3), ("linf-frame", 1)]
    assert {"name": "8 bits", "still": 2, "right": 2} in l2["treatments"]
    assert {"name": "8 bits", "still": 1, "right": 1} in linf["treatments"]
    assert asked == [len(treatments()) * (4 + 3)]


def test_a_run_holds_what_survived_and_its_report_shows_it(tiny_model, fake_videos):
    question = (tiny_model, fake_videos, "pgd:steps=5", [rv.Budget("linf", "64/255")])
    results = rv.evaluate(*question, limit=8, keep=5, out="run")
    kept = list(read_clips(results.folder / "clips"))
    fell = sum(not clip.row["robust"] for clip in kept)
    assert 1 <= fell <= len(kept) <= 5
    (found,) = results.survival
    assert found["n"] == fell
    assert {"name": "8 bits", "still": fell, "right": fell} in found["treatments"]
    assert json.loads((results.folder / "summary.json").read_text())["survival"] == results.survival
    page = write_report(results).read_text()
    assert "Stored, sent and scaled" in page
    assert "H.264, CRF 23" in page
    none = rv.evaluate(*question, limit=8, keep=0, out="none")
    assert none.survival == []
    assert "Stored, sent and scaled" not in write_report(none).read_text()
    with pytest.raises(RunError, match="keep=-1"):
        rv.evaluate(*question, keep=-1)


def test_a_damaged_file_says_what_to_do(tiny_model, fake_videos):
    results = rv.evaluate(tiny_model, fake_videos, "fgsm", [rv.Budget("linf", "64/255")], limit=4)
    (results.folder / "survival.json").write_text('[{"threat": 1}]')
    with pytest.raises(RunError, match="run the same attack again"):
        _ = results.survival


def test_clips_that_cannot_be_stored_cost_no_result(tiny_model, fake_videos, monkeypatch, caplog):
    def refuse(*_):
        raise DataError("no encoder")

    monkeypatch.setattr("robustvid.evaluation.sweep.survival", refuse)
    results = rv.evaluate(tiny_model, fake_videos, "fgsm", [rv.Budget("linf", "64/255")], limit=4)
    assert results.complete
    assert results.survival == []
    assert "what survives storage is not measured: no encoder" in caplog.text
