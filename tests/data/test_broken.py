"""What is no video, or no longer one: frames, or an error that names the file; never a crash, never a hang."""

import os
import subprocess
import sys
from pathlib import Path

import broken_videos
import pytest
from click.testing import CliRunner

from robustvid.cli import main
from robustvid.data.checking import Listed, check_video
from robustvid.data.decode import count_frames, read_frames
from robustvid.errors import DecodeError

FUZZED = 500


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return broken_videos.make_all(tmp_path_factory.mktemp("broken"))


def test_there_are_many_kinds(broken):
    assert len(broken) >= 15


def test_every_kind_is_refused_by_name(broken):
    for name, path in broken.items():
        for attempt in (
            lambda path=path: read_frames(path, [0]),
            lambda path=path: count_frames(path) and read_frames(path, [1]),
        ):
            with pytest.raises(DecodeError) as caught:
                attempt()
            assert name in str(caught.value), name
            assert "\n" not in str(caught.value)
        assert check_video(Listed(path)).error, name


def test_playlists_open_nothing_else(broken, monkeypatch):
    opened = []
    sys.addaudithook(lambda event, arguments: opened.append(arguments) if event == "socket.connect" else None)
    for name in ("concat.mp4", "playlist.mp4", "link.mp4", "manifest.mp4", "session.mp4"):
        with pytest.raises(DecodeError):
            read_frames(broken[name], [0])
    assert opened == []


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    path = broken_videos.picture(tmp_path / "picture.mp4")
    assert count_frames(path) == 1
    assert read_frames(path, [0]).shape == (1, 8, 16, 3)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_must_not_be_read(tmp_path):
    path = tmp_path / "secret.mp4"
    broken_videos.whole(path)
    path.chmod(0)
    with pytest.raises(DecodeError, match="secret"):
        read_frames(path, [0])


def test_data_check_finds_each(broken):
    folder = next(iter(broken.values())).parent
    result = CliRunner().invoke(main, ["data", "check", str(folder), "--out", "found.json"])
    assert result.exit_code == 1
    for name in set(broken) - {"missing.mp4"}:
        assert f"broken   {folder / name}: " in result.output, name
    assert "whole.mp4" not in result.output


FUZZ = """
import sys
from pathlib import Path
import broken_videos
from robustvid.data.decode import count_frames, read_frames
from robustvid.errors import DecodeError

here, sources = Path(sys.argv[1]), [Path(name).read_bytes() for name in sys.argv[3:]]
suffixes = [Path(name).suffix for name in sys.argv[3:]]
for seed in range(int(sys.argv[2])):
    which = seed % len(sources)
    path = here / f"case{seed}{suffixes[which]}"
    path.write_bytes(broken_videos.damaged(sources[which], seed))
    try:
        n = count_frames(path)
        assert n > 0
        for indices in ([0, n - 1], [n // 2]):
            frames = read_frames(path, indices)
            assert len(frames) == len(indices) and frames.ndim == 4 and frames.shape[3] == 3 and frames.numel()
        outcome = "read"
    except DecodeError as error:
        assert path.name in str(error), error
        outcome = "refused"
    path.unlink()
    print(seed, outcome, flush=True)
"""


def fuzz(folder, sources, cases, seconds):
    """Run all cases in one process of its own, so that a crash or a hang is a failure that names its case."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(folder), str(cases), *map(str, sources)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"PYTHONPATH": str(Path(broken_videos.__file__).parent), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-2000:]}"
    assert len(lines) == cases
    return {outcome: sum(line.endswith(outcome) for line in lines) for outcome in ("read", "refused")}


def test_five_hundred_cuts_and_flips(tmp_path):
    sources = []
    for name, codec in (
        ("a.mp4", "libx264"),
        ("b.avi", "mpeg4"),
        ("c.webm", "libvpx-vp9"),
        ("d.ts", "libx264"),
        ("e.mkv", "ffv1"),
    ):
        sources.append(tmp_path / name)
        if codec == "ffv1":
            broken_videos.write_video(
                sources[-1], broken_videos.torch.zeros(9, 16, 16, 3).byte(), 25, codec, pixel_format="bgr0"
            )
        else:
            broken_videos.whole(sources[-1], codec)
    outcomes = fuzz(tmp_path, sources, FUZZED, 240)
    assert min(outcomes.values()) > 50  # both happen


def test_real_files_cut_and_flipped(real_videos, tmp_path):
    sources = [path for path in sorted(real_videos.iterdir()) if path.stat().st_size < 600_000]
    fuzz(tmp_path, sources, 50, 240)


@pytest.mark.slow
def test_real_files_cut_and_flipped_five_hundred_times(real_videos, tmp_path):
    fuzz(tmp_path, sorted(real_videos.iterdir()), FUZZED, 1800)
