"""Shared by all tests: a small model and dataset that need no files, and one thread."""

import pytest
import torch

import robustvid as rv
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

torch.set_num_threads(1)  # tests run side by side; threads of several processes wait for each other


class FakeVideos:
    """Random clips labelled by a model, one in six wrongly."""

    name, split, classes = "fake", "test", ("a", "b", "c", "d")

    def __init__(self, model, count=24):
        self.model, self.count, self.digest = model, count, "fake-v1"

    def __len__(self):
        return self.count

    def sample(self, index, clip):
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(60, 200, (clip.frames, *clip.size, 3), generator=generator, dtype=torch.uint8)
        with rv.frozen(self.model), torch.no_grad():
            label = int(self.model(frames.permute(3, 0, 1, 2)[None] / 255).argmax())
        return rv.Sample(f"fake/{index:03d}", frames, (label + (index % 6 == 0)) % 4)


@pytest.fixture
def tiny_model():
    card = rv.ModelCard("tiny", "tiny", FakeVideos.classes, rv.ClipSpec(4, 1, (16, 16)))
    return VideoClassifier(TinyVideoNet(4), card)


@pytest.fixture
def fake_videos(tiny_model):
    return FakeVideos(tiny_model)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test works in an empty folder, so that nothing lands in the checkout."""
    monkeypatch.chdir(tmp_path)
