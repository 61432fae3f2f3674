"""What the search skipped is tried after all, and found wrong where it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import robustvid as rv
from robustvid.errors import RunError
from robustvid.evaluation.verdict import Judge

LINF = [rv.Budget("linf", f"{n}/255") for n in (1, 2, 4, 8, 16)]


def test_a_monotone_attack_is_never_found_wrong(tiny_model, fake_videos):
    results = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", LINF, audit=1.0)
    audit = results.audit
    assert audit["checked"] == audit["skipped"] > 0
    assert (audit["wrong"], audit["rate"], audit["lo"]) == (0, 0.0, 0.0)
    assert audit["hi"] == pytest.approx(3.8415 / (audit["checked"] + 3.8415), rel=1e-3)
    assert results.summary()["audit"] == audit
    assert results.flags == []


def test_an_attack_that_fails_only_when_it_may_do_more_is_found_out(tiny_model, fake_videos, monkeypatch):
    broken_below(monkeypatch)
    results = rv.evaluate(tiny_model, fake_videos, "pgd:steps=2", LINF, audit=1.0)
    assert results.curve().correct.tolist() == [results.clean["correct"]] * 6
    assert results.audit["wrong"] == 2 * results.clean["correct"]
    assert [flag["flag"] for flag in results.flags] == ["skipping-was-wrong"]


def broken_below(monkeypatch):
    """Let pgd break every clip below 3/255 and none above."""
    attack = Judge.attack

    def masked(self, card, threat, clips, cells, clean):
        found = attack(self, card, threat, clips, cells, clean)
        return [
            item._replace(row=replace(item.row, robust=float(threat.budgets[cell].frame) > 3 / 255))
            for item, cell in zip(found, cells, strict=True)
        ]

    monkeypatch.setattr(Judge, "attack", masked)


def test_the_draw_is_a_share_and_goes_on(tiny_model, fake_videos):
    whole = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", LINF, out="run", audit=0.5)
    assert 0.2 < whole.audit["checked"] / whole.audit["skipped"] < 0.8
    journal = Path("run/audit.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    again = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", LINF, out="run", audit=0.5, batch_size=3)
    assert again.audit == whole.audit
    ids = [(row["sample"], row["eps_frame"]) for row in map(json.loads, journal.read_text().splitlines())]
    assert len(ids) == len(set(ids)) == len(lines)
    curve = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", LINF, out="none", audit=0).curve()
    assert curve.equals(whole.curve())
    assert not Path("none/audit.jsonl").read_bytes()


def test_every_skips_nothing_and_nonsense_is_refused(tiny_model, fake_videos):
    results = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, strategy="every", audit=1.0)
    assert results.audit["skipped"] == 0
    with pytest.raises(RunError, match="audit=2"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, audit=2)
