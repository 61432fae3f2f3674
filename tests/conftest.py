"""Shared by all tests: a small model and dataset that need no files, and one thread."""

import logging
from pathlib import Path

import pytest
import torch
from fakes import FakeVideos

import robustvid as rv
from robustvid.data.motion10 import FOLDER, build
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


@pytest.fixture(autouse=True)
def _heard_log(monkeypatch):
    """The command line keeps the log to itself; the test after it is to hear it again."""
    monkeypatch.setattr(logging.getLogger("robustvid"), "propagate", True)


@pytest.fixture(scope="session")
def small_motion10(tmp_path_factory):
    """A home with a motion10 of three training and two test videos per class."""
    home = tmp_path_factory.mktemp("home")
    build(home / FOLDER, {"train": 3, "test": 2})
    return home


@pytest.fixture
def small_home(small_motion10, monkeypatch):
    """The small motion10 where every command looks for it."""
    monkeypatch.setenv("ROBUSTVID_HOME", str(small_motion10))


@pytest.fixture
def real_videos():
    folder = Path(__file__).parents[1].parent / "shared" / "data" / "video"
    if not folder.is_dir():
        pytest.skip("the real videos for tests (shared/data/video) are not on this machine")
    return folder


@pytest.fixture
def deploy():
    """Skip what removes channels or exports where the packages for it are not installed."""
    for package in ("torch_pruning", "openvino", "nncf", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra deploy")
