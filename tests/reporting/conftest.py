"""Runs of a linear toy model, made once a session: curves, surfaces, an unfinished run and one with hostile names."""

import json
import shutil

import pytest
import torch
from torch import nn

import robustvid as rv
from robustvid.models.classifier import VideoClassifier

CLASSES = ("a", "b", "c", "d")
SPEC = rv.ClipSpec(4, 2, (8, 8))
HOSTILE = "<script>alert('x')</script>&[red]"


class Noise:
    name, split, classes, digest = "noise", "test", CLASSES, "noise-v1"

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 16

    def sample(self, index, clip):
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(0, 256, (clip.frames, *clip.size, 3), generator=generator, dtype=torch.uint8)
        with torch.no_grad():
            label = int(self.model(frames.permute(3, 0, 1, 2)[None] / 255).argmax())
        return rv.Sample(f"s{index}", frames, label if index % 8 else (label + 1) % 4)


def toy_model(name="toy", seed=0):
    linear = nn.Linear(3 * 4 * 8 * 8, 4, bias=False)
    with torch.no_grad():
        linear.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    card = rv.ModelCard(name, "linear", CLASSES, SPEC, (0.5,) * 3, (0.5,) * 3)
    return VideoClassifier(nn.Sequential(nn.Flatten(), linear), card)


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
