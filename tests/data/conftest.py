from pathlib import Path

import pytest


@pytest.fixture
def real_videos():
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "video"
    if not folder.is_dir():
        pytest.skip("the real videos for tests (shared/data/video) are not on this machine")
    return folder
