import threading

import pytest
import torch

from robustvid.contracts import ClipSpec, Sample
from robustvid.data.batches import Videos, ahead, load_videos, training_batches
from robustvid.data.decode import read_frames, write_video
from robustvid.data.folder import FolderDataset
from robustvid.data.motion10 import Motion10
from robustvid.errors import DataError, DecodeError

CLIP = ClipSpec(frames=8, stride=2, size=(64, 64))


@pytest.fixture(scope="module")
def data(small_motion10):
    return Motion10(small_motion10, "train")


@pytest.fixture(scope="module")
def videos(data):
    return load_videos(data)


def whole(batches):
    clips, labels = zip(*batches, strict=True)
    return torch.cat(clips), torch.cat(labels)


def test_videos_are_loaded_whole(data, videos):
    assert videos.frames.shape == (30, 24, 64, 64, 3)
    assert videos.frames.dtype == torch.uint8
    assert videos.labels.tolist() == data.labels
    assert torch.equal(videos.frames[17], read_frames(data.path(17), range(24)))


def test_an_epoch_holds_every_video_once(videos):
    batches = list(training_batches(videos, CLIP, 8, seed=0, epoch=0))
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 6]
    clips, labels = whole(batches)
    assert clips.shape == (30, 3, 8, 64, 64)
    assert clips.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [3] * 10
    assert labels.tolist() != videos.labels.tolist()


def test_everything_follows_from_seed_and_epoch(videos):
    def epoch(*key, size=8):
        return whole(training_batches(videos, CLIP, size, *key, roll=True))

    clips, labels = epoch(1, 5)
    torch.manual_seed(3)
    for again in (epoch(1, 5), epoch(1, 5, size=30)):
        assert torch.equal(again[0], clips)
        assert torch.equal(again[1], labels)
    for other in (epoch(1, 6), epoch(2, 5)):
        assert not torch.equal(other[0], clips)


def test_the_global_random_state_is_left_alone(videos):
    before = torch.get_rng_state()
    whole(training_batches(videos, CLIP, 8, seed=0, epoch=0, roll=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_clips_come_from_the_videos_at_many_starts():
    time = torch.arange(24).byte().reshape(1, 24, 1, 1, 1).expand(40, 24, 4, 4, 3)
    source = Videos(time, torch.arange(40))
    clips, _ = whole(training_batches(source, ClipSpec(8, 2, (4, 4)), 16, seed=0, epoch=0))
    frames = (clips[:, 0, :, 0, 0] * 255).round().int()
    assert (frames.diff(dim=1) == 2).all()
    assert set(frames[:, 0].tolist()) == set(range(10))


def test_decoding_on_demand_gives_the_same_clips(data, videos):
    for kept, read in zip(
        training_batches(videos, CLIP, 10, 0, 0), training_batches(data, CLIP, 10, 0, 0), strict=True
    ):
        assert torch.equal(kept[0], read[0])
        assert torch.equal(kept[1], read[1])


def test_rolling_shifts_all_frames_of_a_clip_alike():
    frames = torch.zeros(6, 3, 8, 8, 3, dtype=torch.uint8)
    frames[:, :, 2, 3] = 255
    source = Videos(frames, torch.arange(6))
    clips, _ = whole(training_batches(source, ClipSpec(3, 1, (8, 8)), 2, seed=0, epoch=0, roll=True))
    places = [clip[0].nonzero()[:, 1:] for clip in clips]
    assert all(len(place) == 3 and (place == place[0]).all() for place in places)
    assert len({tuple(place[0].tolist()) for place in places}) > 3


def test_a_dataset_with_nothing_but_samples_can_be_trained_on():
    class Mine:
        name, split, classes = "mine", "train", ("a", "b")

        def __len__(self):
            return 4

        def sample(self, index, clip):
            return Sample(str(index), torch.full((clip.frames, *clip.size, 3), index).byte(), index % 2)

    clips, labels = whole(training_batches(Mine(), ClipSpec(2, 1, (4, 4)), 3, seed=0, epoch=0))
    assert ((clips[:, 0, 0, 0, 0] * 255).round().long() % 2).tolist() == labels.tolist()


def test_videos_of_different_lengths_are_trained_on_from_the_files(tmp_path):
    (tmp_path / "a").mkdir()
    for n in (9, 12):
        write_video(tmp_path / "a" / f"{n}.mp4", torch.zeros(n, 32, 32, 3, dtype=torch.uint8), 25)
    data = FolderDataset(tmp_path)
    with pytest.raises(DataError, match="give the dataset itself"):
        load_videos(data)
    clips, _ = whole(training_batches(data, ClipSpec(4, 2, (16, 16)), 2, seed=0, epoch=0))
    assert clips.shape == (2, 3, 4, 16, 16)


def test_an_empty_batch_size_is_refused(videos):
    with pytest.raises(DataError, match="at least 1"):
        next(training_batches(videos, CLIP, 0, 0, 0))


@pytest.fixture
def folder(tmp_path):
    """Sixteen videos of two classes in files, the third and the last of them broken."""
    for number in range(16):
        path = tmp_path / "videos" / "ab"[number % 2] / f"{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, torch.full((4, 16, 16, 3), 10 * number, dtype=torch.uint8), 12, crf=0)
        if number in {2, 15}:
            path.write_text("no video")
    return FolderDataset(tmp_path / "videos")


SMALL = ClipSpec(frames=2, stride=1, size=(16, 16))


def numbers(clips):
    return (clips.mean((1, 2, 3, 4)) * 25.5).round().int().tolist()


def test_a_video_that_cannot_be_read_stops_an_epoch(folder):
    with pytest.raises(DecodeError, match=r"(02|15)\.mp4"):
        list(training_batches(folder, SMALL, 5, seed=0, epoch=0))


@pytest.mark.parametrize("size", [1, 5, 16])
def test_another_video_takes_the_place_of_one_that_cannot_be_read(folder, size):
    told = []
    batches = list(training_batches(folder, SMALL, size, seed=0, epoch=0, left_out=told.append))
    assert [len(labels) for _, labels in batches] == [min(size, 16 - start) for start in range(0, 16, size)]
    assert {error.path.name for error in told} == {"02.mp4", "15.mp4"}
    clips, labels = whole(batches)
    seen = numbers(clips)
    assert set(seen) == set(range(16)) - {2, 15}
    assert [number % 2 for number in seen] == labels.tolist()
    again, _ = whole(training_batches(folder, SMALL, 16, seed=0, epoch=0, left_out=told.append))
    assert torch.equal(again, clips)


def test_where_none_can_be_read_the_first_error_is_told(folder):
    for path in folder.root.rglob("*.mp4"):
        path.write_text("no video")
    with pytest.raises(DecodeError):
        next(training_batches(folder, SMALL, 4, seed=0, epoch=0, left_out=lambda _: None))


def test_batches_made_ahead_are_the_same_and_errors_come_through(folder):
    plain = list(training_batches(folder, SMALL, 4, seed=1, epoch=0, left_out=lambda _: None))
    early = list(ahead(training_batches(folder, SMALL, 4, seed=1, epoch=0, left_out=lambda _: None)))
    assert all(torch.equal(a, b) for one, two in zip(plain, early, strict=True) for a, b in zip(one, two, strict=True))
    with pytest.raises(DecodeError):
        list(ahead(training_batches(folder, SMALL, 4, seed=1, epoch=0)))


def test_the_next_is_made_while_one_is_used():
    made = []
    second = threading.Event()

    def make():
        for number in range(3):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    items = ahead(make())
    assert next(items) == 0
    assert second.wait(10)
    items.close()
    assert made[:2] == [0, 1]
