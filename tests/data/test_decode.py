import pickle
import random
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustvid.data import decode
from robustvid.data.decode import count_frames, read_frames, write_video
from robustvid.errors import DataError, DecodeError, MissingPackageError

HEIGHT, WIDTH, LENGTH = 48, 64, 60
FORMATS = [
    ("mp4", "libx264", "yuv420p", 18),
    ("mkv", "libx264", "yuv444p", 0),
    ("mp4", "libx264rgb", "rgb24", 0),
    ("avi", "mpeg4", "yuv420p", 0),
    ("mkv", "ffv1", "bgr0", 0),
]


def numbered(n, height=HEIGHT, width=WIDTH):
    """Frames that show their number as eight black or white bars, over some noise below them."""
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0)).byte()
    frames = torch.stack([noise.roll(frame, 1) for frame in range(n)])
    bits = (torch.arange(n)[:, None] >> torch.arange(8)) & 1
    frames[:, : height // 4] = (bits.repeat_interleave(width // 8, 1) * 255).byte()[:, None, :, None]
    return frames


def numbers(frames):
    bars = frames[:, : frames.shape[1] // 4].float().mean((1, 3)).unflatten(1, (8, -1)).mean(2) > 127
    return (bars.long() << torch.arange(8)).sum(1).tolist()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = {}
    for suffix, codec, pixel_format, crf in FORMATS:
        paths[codec, pixel_format] = folder / f"{codec}_{pixel_format}.{suffix}"
        write_video(paths[codec, pixel_format], numbered(LENGTH), 25, codec, crf, pixel_format=pixel_format)
    return paths


@pytest.fixture(scope="module")
def long_gop(videos):
    return videos["libx264", "yuv420p"]


def test_the_test_video_has_b_frames_and_one_key_frame(long_gop):
    with av.open(str(long_gop)) as container:
        kinds = [PictureType(frame.pict_type).name for frame in container.decode(video=0)]
    assert kinds.count("I") == 1
    assert kinds.count("B") > 10


@pytest.mark.parametrize("kind", [(codec, pixel_format) for _, codec, pixel_format, _ in FORMATS])
def test_every_format_gives_every_frame_in_display_order(videos, kind):
    assert count_frames(videos[kind]) == LENGTH
    frames = read_frames(videos[kind], range(LENGTH))
    assert frames.dtype == torch.uint8
    assert frames.shape == (LENGTH, HEIGHT, WIDTH, 3)
    assert numbers(frames) == list(range(LENGTH))


@pytest.mark.parametrize("kind", [("libx264rgb", "rgb24"), ("ffv1", "bgr0")])
def test_lossless_files_come_back_bit_for_bit(videos, kind):
    assert torch.equal(read_frames(videos[kind], range(LENGTH)), numbered(LENGTH))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=12))
def test_any_indices_in_any_order_with_repetitions(long_gop, indices):
    assert numbers(read_frames(long_gop, indices)) == indices


def test_pixels_are_those_of_a_plain_decode(real_videos):
    for path in sorted(real_videos.iterdir()):
        frames = read_frames(path, [7, 3, 3])
        with av.open(str(path)) as container:
            decoded = container.decode(container.streams.best("video"))
            plain = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(8), decoded, strict=False)]
        assert np.array_equal(frames.numpy(), np.stack([plain[7], plain[3], plain[3]])), path.name


@pytest.mark.parametrize(
    ("name", "n", "shape"),
    [
        ("ucf101_v_ApplyEyeMakeup_g01_c01.avi", 164, (240, 320)),
        ("h264_10bits.mp4", 30, (200, 200)),
        ("h265_video.mp4", 10, (128, 128)),
    ],
)
def test_real_files(real_videos, name, n, shape):
    assert count_frames(real_videos / name) == n
    assert read_frames(real_videos / name, [n - 1]).shape == (1, *shape, 3)
    with pytest.raises(DecodeError, match=f"frame {n} was asked for, but only {n}"):
        read_frames(real_videos / name, [0, n])


def write_with(path, frames, prepare):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        prepare(stream)
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_in_the_metadata_is_applied(tmp_path, degrees):
    path = tmp_path / "turned.mp4"
    write_with(path, numbered(3), lambda stream: stream.set_display_rotation(degrees))
    turned = torch.rot90(numbered(3), degrees // 90, (1, 2))  # counter-clockwise, as FFmpeg counts
    assert torch.equal(read_frames(path, range(3)), turned)


def test_a_change_of_resolution_is_scaled_to_the_first_frame(tmp_path):
    small, large = tmp_path / "small.h264", tmp_path / "large.h264"
    write_video(small, numbered(4), 25)
    write_video(large, numbered(4, 2 * HEIGHT, 2 * WIDTH), 25)
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = read_frames(both, range(8))
    assert frames.shape == (8, HEIGHT, WIDTH, 3)
    assert numbers(frames) == [0, 1, 2, 3] * 2


def damaged(source, path):
    """Copy a video with two hundred bits flipped somewhere between its headers."""
    data, generator = bytearray(source.read_bytes()), random.Random(0)
    for _ in range(200):
        data[generator.randrange(20_000, len(data) - 30_000)] ^= 1 << generator.randrange(8)
    path.write_bytes(data)
    return path


def test_damaged_packets_do_not_lose_the_rest(real_videos, tmp_path):
    path = damaged(real_videos / "kinetics_arm_wrestling.mp4", tmp_path / "damaged.mp4")
    assert count_frames(path) > 270
    assert read_frames(path, [270]).shape == (1, 256, 340, 3)


def test_an_avi_cut_in_half_gives_the_frames_it_has(real_videos, tmp_path):
    whole = (real_videos / "ucf101_v_ApplyEyeMakeup_g01_c01.avi").read_bytes()
    path = tmp_path / "half.avi"
    path.write_bytes(whole[: len(whole) // 2])
    n = count_frames(path)
    assert 60 < n < 100
    assert len(read_frames(path, [n - 1])) == 1
    with pytest.raises(DecodeError, match=f"only {n} frames"):
        read_frames(path, [n])


def missing(path):
    return path


def directory(path):
    path.mkdir()
    return path


def empty(path):
    path.touch()
    return path


def text(path):
    path.write_text("This is not a video.\n" * 50)
    return path


def zeros(path):
    path.write_bytes(bytes(10_000))
    return path


def sound(path):
    path = path.with_suffix(".wav")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return path


def cut_short(path):
    write_video(path, numbered(9), 25)
    path.write_bytes(path.read_bytes()[:900])
    return path


def header_only(path):
    path = path.with_suffix(".avi")
    write_video(path, numbered(9), 25, "mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "no such file"),
        (directory, "directory"),
        (empty, "empty"),
        (text, "Invalid data"),
        (zeros, "Invalid data"),
        (sound, "no video stream"),
        (cut_short, "Invalid data"),
        (header_only, "can be decoded"),
    ],
)
def test_bad_files_give_one_error_that_says_why(tmp_path, make, reason):
    path = make(tmp_path / "video.mp4")
    for attempt in (lambda: read_frames(path, [0]), lambda: count_frames(path)):
        with pytest.raises(DecodeError, match=reason) as caught:
            attempt()
        assert caught.value.path == path
        assert str(path) in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("indices", [[], [-1], [3, -2]])
def test_senseless_indices_are_refused(long_gop, indices):
    with pytest.raises(DecodeError, match="none negative"):
        read_frames(long_gop, indices)


def test_frames_beyond_the_pixel_bound_are_refused_before_decoding(long_gop, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", HEIGHT * WIDTH)
    read_frames(long_gop, [0])
    monkeypatch.setattr(decode, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(DecodeError, match="64x48"):
        read_frames(long_gop, [0])


def test_files_are_closed_after_an_early_stop_and_after_an_error(long_gop, tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open files are listed in /proc, which only Linux has")
    bad = text(tmp_path / "bad.mp4")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        read_frames(long_gop, [0])
        with pytest.raises(DecodeError):
            read_frames(long_gop, [999])
        with pytest.raises(DecodeError):
            read_frames(bad, [0])
    assert len(list(descriptors.iterdir())) == before


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "video.mp4"
    write_video(path, numbered(5), 25)
    before = path.read_bytes()

    def breaks_off(unfinished, *_, **__):
        unfinished.write_bytes(b"the first half")
        raise OSError("no space left on device")

    monkeypatch.setattr(decode, "encode", breaks_off)
    with pytest.raises(DataError, match="cannot write"):
        write_video(path, numbered(5), 25)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frames", "name", "codec"),
    [
        (numbered(3).float(), "a.mp4", "libx264"),
        (numbered(3)[0], "a.mp4", "libx264"),
        (numbered(3)[:0], "a.mp4", "libx264"),
        (numbered(3)[:, :33, :17], "a.mp4", "libx264"),
        (numbered(3), "a.nonsense", "libx264"),
        (numbered(3), "a.mp4", "no_such_codec"),
        (numbered(3), "a.mp4", "aac"),
        (numbered(3), "no/such/folder/a.mp4", "libx264"),
    ],
)
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path, frames, name, codec):
    with pytest.raises(DataError):
        write_video(tmp_path / name, frames, 25, codec)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [12, 29.97, 23.976])
def test_the_frame_rate_is_kept(tmp_path, fps):
    write_video(tmp_path / "video.mp4", numbered(5), fps)
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-4)


def test_importing_the_package_does_not_import_pyav():
    code = "import sys, robustvid.data; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pyav_the_error_names_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(MissingPackageError, match="PyAV"):
        read_frames(tmp_path / "clip.mp4", [0])
    with pytest.raises(MissingPackageError, match="PyAV"):
        write_video(tmp_path / "new.mp4", torch.zeros(2, 16, 16, 3, dtype=torch.uint8), 12)
