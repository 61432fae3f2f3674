from pathlib import Path

import pytest
import torch

from robustvid.data.motion10 import FOLDER, build

torch.set_num_threads(1)


@pytest.fixture
def real_videos():
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "video"
    if not folder.is_dir():
        pytest.skip("the real videos for tests (shared/data/video) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def small_motion10(tmp_path_factory):
    """A home with a motion10 of three training and two test videos per class."""
    home = tmp_path_factory.mktemp("home")
    build(home / FOLDER, {"train": 3, "test": 2})
    return home
