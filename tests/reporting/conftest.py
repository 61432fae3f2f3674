"""Runs of a linear toy model, made once a session: curves, surfaces, an unfinished run and one with hostile names."""

import json
import shutil

import pytest
from noise import CLASSES, Noise, toy_model

import robustvid as rv

HOSTILE = "<script>alert('x')</script>&[red]"


@pytest.fixture(scope="session")
def measure(tmp_path_factory):
    """Return a function that makes a run of the toy model in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs")
    model = toy_model()

    def run(name, attacks, budgets, model=model, **options):
        return rv.evaluate(model, Noise(toy_model()), attacks, budgets, out=folder / name, **options)

    return run


RADII = ("1/510", "1/255", "2/255", "4/255")


@pytest.fixture(scope="session")
def results(measure):
    """Two threats, two attacks that each meet every clip."""
    budgets = [rv.Budget("linf", radius) for radius in RADII] + [rv.Budget("l2", clip=c) for c in (0.05, 0.2)]
    return measure("curves", ["fgsm", "pgd:steps=3"], budgets, command=["robustvid", "attack", "toy"])


@pytest.fixture(scope="session")
def other(measure):
    """The same question to another model."""
    budgets = [rv.Budget("linf", radius) for radius in RADII] + [rv.Budget("l2", clip=c) for c in (0.05, 0.2)]
    return measure("other", ["fgsm", "pgd:steps=3"], budgets, model=toy_model("toy-b", 1))


@pytest.fixture(scope="session")
def surface(measure):
    budgets = [rv.Budget("linf", radius, frames=k) for radius in RADII for k in (1, 2, None)]
    return measure("surface", "fgsm", budgets)


@pytest.fixture(scope="session")
def frames_only(measure):
    return measure("frames", "fgsm", [rv.Budget("linf", "2/255", frames=k) for k in (1, 2, None)])


@pytest.fixture
def copied(results, tmp_path):
    """Return a function that copies the run and changes its spec."""

    def copy(change=lambda spec: None):
        folder = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(results.folder, folder)
        spec = json.loads((folder / "spec.json").read_text())
        change(spec)
        (folder / "spec.json").write_text(json.dumps(spec))
        return rv.Results(folder)

    return copy


@pytest.fixture
def partial(copied):
    """Return a run that was stopped after half of its measurements."""
    path = copied().folder / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    return rv.Results(path.parent)


@pytest.fixture
def unmeasured(copied):
    """Return a run that was stopped before anything was measured."""
    path = copied().folder / "rows.jsonl"
    path.write_text("")
    return rv.Results(path.parent)


@pytest.fixture
def hostile(copied):
    """Return a run with names that are markup."""

    def rename(spec):
        spec["model"]["name"] = HOSTILE
        spec["model"]["classes"] = [f"{name}{HOSTILE}" for name in CLASSES]

    return copied(rename)
