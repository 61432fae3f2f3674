"""Shared by all tests: a small model and dataset that need no files, and one thread."""

import pytest
import torch
from fakes import FakeVideos

import robustvid as rv
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

torch.set_num_threads(1)  # tests run side by side; threads of several processes wait for each other


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
