"""Decoded once, read from the disk: the same pixels, and every damage noticed."""

import json
from dataclasses import replace

import pytest
import torch

import robustvid as rv
from robustvid.data.batches import training_batches
from robustvid.data.cache import FRAMES_FILE, INDEX_FILE, open_cache, write_cache
from robustvid.data.folder import FolderDataset
from robustvid.errors import DataError, DecodeError
from robustvid.testing import check_dataset

CLIP = rv.ClipSpec(4, 2, (32, 32), views=2)
ONE = replace(CLIP, views=1)


@pytest.fixture(scope="module")
def data(small_motion10):
    return rv.load_data("motion10", root=small_motion10)


@pytest.fixture
def broken(small_motion10, tmp_path):
    for name in ("up", "down"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        video = next((small_motion10 / "motion10-v1" / "test" / name).iterdir())
        (tmp_path / "videos" / name / "good.mp4").write_bytes(video.read_bytes())
    (tmp_path / "videos/up/bad.mp4").write_text("no video")
    return FolderDataset(tmp_path / "videos")


def test_evaluation_clips_come_back_bit_for_bit(data, tmp_path):
    done = []
    assert write_cache(data, tmp_path / "cache", CLIP, progress=done.append) == []
    assert done == list(range(1, 21))
    cache = open_cache(tmp_path / "cache", "test")
    assert (cache.name, cache.split, cache.classes, cache.digest) == ("motion10", "test", data.classes, data.digest)
    check_dataset(cache, CLIP)
    for index in range(len(data)):
        (id_, frames, label), own = data.sample(index, CLIP), cache.sample(index, CLIP)
        assert (own.id, own.label) == (id_, label)
        assert torch.equal(own.frames, frames)
    with pytest.raises(DataError, match="make a cache for this model"):
        cache.sample(0, ONE)


def test_whole_videos_train_as_their_files_do(data, tmp_path):
    write_cache(data, tmp_path / "cache", ONE, whole=True, jobs=1)
    cache = open_cache(tmp_path / "cache")
    assert cache.frame_count(3) == 24
    assert torch.equal(cache.sample(3, CLIP).frames, data.sample(3, CLIP).frames)
    batches = [list(training_batches(source, ONE, 8, seed=1, epoch=2)) for source in (cache, data)]
    for (clips, labels), (own_clips, own_labels) in zip(*batches, strict=True):
        assert torch.equal(clips, own_clips)
        assert torch.equal(labels, own_labels)
    with pytest.raises(DataError, match="make a cache for this model"):
        next(training_batches(cache, replace(ONE, size=(24, 24)), 8, seed=1, epoch=2))


def test_what_cannot_be_read_stops_or_is_left_out(broken, tmp_path):
    with pytest.raises(DecodeError, match=r"bad\.mp4"):
        write_cache(broken, tmp_path / "cache", ONE)
    assert not list(tmp_path.glob("*cache*"))
    (left,) = write_cache(broken, tmp_path / "cache", ONE, skip=True)
    assert left.path.name == "bad.mp4"
    assert open_cache(tmp_path / "cache").ids == ["down/good", "up/good"]


def test_damage_is_noticed(data, tmp_path):
    folder = tmp_path / "cache"
    write_cache(data, folder, ONE)
    frames, index = folder / FRAMES_FILE, folder / INDEX_FILE
    pixels = bytearray(frames.read_bytes())
    pixels[5] ^= 1
    frames.write_bytes(pixels)
    with pytest.raises(DecodeError, match="damaged"):
        open_cache(folder).sample(0, ONE)
    open_cache(folder).sample(1, ONE)
    frames.write_bytes(pixels[:-1])
    with pytest.raises(DataError, match="size"):
        open_cache(folder)
    frames.write_bytes(pixels)
    told = json.loads(index.read_text())
    told["videos"][0]["label"] = 10
    index.write_text(json.dumps(told))
    with pytest.raises(DataError, match="label without a class"):
        open_cache(folder)
    told["videos"][0]["label"] = float("inf")
    for text in (json.dumps(told), "{}"):
        index.write_text(text)
        with pytest.raises(DataError, match="damaged"):
            open_cache(folder)


def test_mistakes_are_explained(data, tmp_path):
    with pytest.raises(DataError, match="needs root"):
        open_cache()
    with pytest.raises(DataError, match="is not a cache"):
        open_cache(tmp_path)
    with pytest.raises(DataError, match="exists"):
        write_cache(data, tmp_path, ONE)
    with pytest.raises(DataError, match="views"):
        write_cache(data, tmp_path / "cache", CLIP, whole=True)
    write_cache(data, tmp_path / "cache", ONE)
    with pytest.raises(DataError, match="holds split 'test'"):
        open_cache(tmp_path / "cache", "train")
