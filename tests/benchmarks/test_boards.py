"""A board whose battery has gained an attack is measured by running that attack alone."""

from functools import partial
from types import SimpleNamespace

import pytest
from noise import BUDGETS, Noise, toy_model

import robustvid as rv
from benchmarks import boards
from robustvid.errors import RunError

PROTOCOL = SimpleNamespace(clips=16, seed=0)


def battery(*names):
    return rv.Battery("some", tuple(rv.load_attack(name) for name in names), len(names))


def run(*names, seed=0):
    model = toy_model()
    return partial(rv.evaluate, model, Noise(model), battery(*names), BUDGETS, seed=seed, keep=4, audit=1)


def facts(results):
    return [(row.sample, row.attack, row.eps_frame, row.robust, row.margin) for row in results.rows]


def test_an_extended_run_is_the_one_from_scratch_and_repeats_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(boards, "KEPT", 4)
    before = run("fgsm", "mi-fgsm")(out=tmp_path / "before")
    wanted = run("fgsm", "pgd", "mi-fgsm")(out=tmp_path / "scratch")
    longer = run("fgsm", "pgd", "mi-fgsm")
    boards.begin_with(tmp_path / "before", PROTOCOL, tmp_path / "extended", partial(longer, out=tmp_path / "extended"))
    found = longer(out=tmp_path / "extended")
    assert found.complete
    assert found.spec == wanted.spec
    assert found.curve().equals(wanted.curve())
    assert {clip.row["sample"] for clip in found.clips()} == {clip.row["sample"] for clip in wanted.clips()}
    assert len(set(facts(found))) == len(facts(found))
    kept = {clip.row["sample"] for clip in wanted.clips()}
    assert {fact for fact in facts(before) if fact[0] not in kept} <= set(facts(found))
    assert "pgd" in {row.attack for row in found.rows if row.sample not in kept}


def test_another_kind_of_run_is_not_extended(tmp_path):
    run("fgsm")(out=tmp_path / "before")
    with pytest.raises(RunError, match="seed: measure it without"):
        boards.begin_with(
            tmp_path / "before", PROTOCOL, tmp_path / "new", partial(run("fgsm", "pgd", seed=1), out=tmp_path / "new")
        )
