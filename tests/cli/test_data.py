"""`robustvid data`: check, list, make and cache as a user types them."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from robustvid.cli import main
from robustvid.data.decode import write_video


def run(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def videos():
    noise = torch.Generator().manual_seed(0)
    for name in ("test/dark/a", "test/dark/b", "test/bright/c"):
        path = Path("videos", f"{name}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, torch.randint(0, 256, (16, 64, 64, 3), generator=noise, dtype=torch.uint8), 12)
    return Path("videos")


def test_check_says_that_all_is_well(videos):
    result = run("data", "check", "videos")
    assert result.exit_code == 0, result.output
    manifest = json.loads((videos / "robustvid-videos.json").read_text())
    assert [Path(entry["path"]).name for entry in manifest["videos"]] == ["c.mp4", "a.mp4", "b.mp4"]
    assert {(entry["frames"], entry["codec"], entry["error"]) for entry in manifest["videos"]} == {(16, "h264", "")}
    assert manifest["leaks"] == []


def test_check_names_what_is_wrong_and_fails(videos):
    (videos / "test/dark/bad.mp4").write_text("no video")
    (videos / "train/dark").mkdir(parents=True)
    (videos / "train/dark/again.mp4").write_bytes((videos / "test/dark/a.mp4").read_bytes())
    result = run("data", "check", "videos", "--out", "checked.json")
    assert result.exit_code == 1
    assert "broken   videos/test/dark/bad.mp4: " in result.output
    assert "leak     the same video is in test (videos/test/dark/a.mp4) and train" in result.output
    told = json.loads(run("data", "check", "videos", "--data", "folder", "--json").stdout)
    assert (told["videos"], told["broken"], len(told["leaks"])) == (5, 1, 1)


@pytest.mark.parametrize(
    "arguments", [("nowhere",), ("videos", "--data", "motion01"), ("videos", "--out", "no/m.json")]
)
def test_check_explains_what_it_cannot_do(videos, arguments):
    result = run("data", "check", *arguments)
    assert result.exit_code in {1, 2}
    assert "Traceback" not in result.output
    assert "Error: " in result.stderr


def test_a_cache_gives_the_run_that_the_files_give(small_home):
    small = ("--mlflow", "off", "-n", "6", "-a", "pgd:steps=2", "--eps-frame", "8/255", "--json")
    files = json.loads(run("attack", *small).stdout)
    result = run("data", "cache", "--model", "conv3d", "--out", "kept")
    assert result.exit_code == 0, result.output
    cached = json.loads(run("attack", "--data", "cache", "--root", "kept", "--fresh", *small).stdout)
    assert cached["run"] == files["run"]
    assert cached["curves"] == files["curves"]
    again = run("data", "cache", "--model", "conv3d", "--out", "kept")
    assert again.exit_code == 2
    assert "exists" in again.stderr


def test_make_and_list(small_home):
    assert "test split: 20 videos" in run("data", "make", "motion10").output
    assert run("data", "list").output == run("list", "data").output
