import hashlib
import json
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from robustvid.contracts import ClipSpec, VideoDataset
from robustvid.data import motion10, read_frames
from robustvid.data.motion10 import FOLDER, MANIFEST, Motion10, build
from robustvid.data.synthetic import CLASSES, render
from robustvid.errors import DataError

CLIP = ClipSpec(frames=8, stride=2, size=(64, 64))
TINY = {"train": 1, "test": 1}


@pytest.fixture(scope="module")
def data(small_motion10):
    return Motion10(small_motion10, "test")


def test_it_is_a_dataset_in_which_classes_take_turns(data):
    assert isinstance(data, VideoDataset)
    assert (data.name, data.split, len(data)) == ("motion10", "test", 20)
    assert data.classes == CLASSES
    assert data.labels == list(range(10)) * 2
    assert data.ids[0] == "test/right/v_right_g000_c01"
    assert data.ids[19] == "test/swing_v/v_swing_v_g001_c01"


def test_samples_are_the_centred_clip_of_the_file(data):
    sample = data.sample(13, CLIP)
    assert (sample.id, sample.label) == (data.ids[13], 3)
    assert torch.equal(sample.frames, read_frames(data.path(13), range(4, 20, 2)))


def test_files_hold_what_was_rendered_but_for_the_codec(data):
    stored = read_frames(data.path(12), range(24)).float()
    drawn = torch.from_numpy(render("test", 2, 1)).float()
    assert (stored - drawn).abs().mean() < 6


def test_other_shapes_of_clips_work(data):
    assert data.sample(0, ClipSpec(30, 1, (32, 48))).frames.shape == (30, 32, 48, 3)


def test_splits_share_no_video(small_motion10):
    hashes = json.loads((small_motion10 / FOLDER / MANIFEST).read_text())["videos"]
    assert len(hashes) == 50
    assert len(set(hashes.values())) == 50
    train, test = Motion10(small_motion10, "train"), Motion10(small_motion10, "test")
    assert len(train) == 30
    assert not set(train.ids) & set(test.ids)
    assert train.digest != test.digest


def test_the_manifest_hashes_the_decoded_frames(small_motion10, data):
    hashes = json.loads((small_motion10 / FOLDER / MANIFEST).read_text())["videos"]
    frames = read_frames(data.path(4), range(24))
    assert hashes[data.ids[4] + ".mp4"] == hashlib.sha256(frames.numpy().tobytes()).hexdigest()


def test_building_twice_gives_the_same_and_another_seed_something_else(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(tmp_path / name / FOLDER, TINY, seed)
    digests = [Motion10(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_a_changed_hash_changes_the_digest_of_its_split_only(tmp_path):
    build(tmp_path / FOLDER, TINY)
    before = [Motion10(tmp_path, split).digest for split in ("train", "test")]
    manifest = json.loads((tmp_path / FOLDER / MANIFEST).read_text())
    manifest["videos"]["test/up/v_up_g000_c01.mp4"] = "0" * 64
    (tmp_path / FOLDER / MANIFEST).write_text(json.dumps(manifest))
    after = [Motion10(tmp_path, split).digest for split in ("train", "test")]
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(motion10, "PER_CLASS", TINY)
    monkeypatch.setattr(motion10.build, "__defaults__", (TINY, 0))


def test_first_use_says_so_on_stderr_and_later_uses_say_nothing(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTVID_HOME", str(tmp_path))
    assert len(Motion10()) == 10
    first = capsys.readouterr()
    assert first.out == ""
    assert first.err.startswith(f"making motion10 (20 videos, once) in {tmp_path / FOLDER} ... done in ")
    Motion10(split="train")
    assert capsys.readouterr() == ("", "")


def test_the_home_folder_is_the_variable_else_the_platforms_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTVID_HOME", str(tmp_path))
    assert motion10.home_folder() == tmp_path
    monkeypatch.delenv("ROBUSTVID_HOME")
    assert motion10.home_folder().name == "robustvid"


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    calls = iter(range(1000))
    write = motion10.write_video

    def fails_at_the_seventh(*args):
        if next(calls) == 6:
            raise OSError("no space left on device")
        write(*args)

    monkeypatch.setattr(motion10, "write_video", fails_at_the_seventh)
    with pytest.raises(DataError, match=r"no space left.*ROBUSTVID_HOME"):
        build(tmp_path / FOLDER, TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_dataset_and_the_next_one_succeeds(tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs fork: a process with everything imported, to be killed half-way")
    many = {"train": 500, "test": 500}
    process = multiprocessing.get_context("fork").Process(target=build, args=(tmp_path / FOLDER, many))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".*/train/right/v_*.mp4")):
            assert time.monotonic() < deadline
            assert process.is_alive()
            time.sleep(0.02)
    finally:
        process.kill()
        process.join()
    assert not (tmp_path / FOLDER).exists()
    build(tmp_path / FOLDER, TINY)
    assert len(Motion10(tmp_path)) == 10


def test_of_several_builds_at_once_one_is_kept_whole(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: build(tmp_path / FOLDER, TINY), range(3)))
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert len(list((tmp_path / FOLDER).rglob("*.mp4"))) == 20
    assert Motion10(tmp_path).sample(9, CLIP).label == 9


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match=r"no split 'tets'.*Did you mean 'test'"):
        Motion10(tmp_path, "tets")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(DataError, match="remove it"):
        Motion10(tmp_path)
    (tmp_path / FOLDER / MANIFEST).write_text('{"videos"')
    with pytest.raises(DataError, match="remove it"):
        Motion10(tmp_path)


def test_a_home_folder_that_cannot_be_written_is_an_error_that_names_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="ROBUSTVID_HOME"):
        build(tmp_path / "file" / FOLDER, TINY)


def test_a_build_never_replaces_a_folder_that_is_something_else(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "diary.txt").write_text("mine")
    with pytest.raises(DataError, match="cannot make motion10"):
        build(tmp_path / FOLDER, TINY)
    assert [path.name for path in tmp_path.rglob("*")] == [FOLDER, "diary.txt"]


@pytest.mark.slow
def test_the_whole_dataset_takes_less_than_a_minute_of_one_core(tmp_path):
    start = time.process_time()
    build(tmp_path / FOLDER)
    assert time.process_time() - start < 60
    assert [len(Motion10(tmp_path, split)) for split in ("train", "test")] == [1200, 400]
