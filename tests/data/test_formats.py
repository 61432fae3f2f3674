"""Frame-exactness: frames that carry their number come back under that number, whatever wrote them."""

import random
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch

from robustvid.data import decode
from robustvid.data.decode import count_frames, read_frames

LENGTH = 75


class Format(NamedTuple):
    name: str
    codec: str
    options: dict
    pixels: str = "yuv420p"
    size: tuple = (48, 64)
    times: str = "even"
    container: tuple = ()
    b_frames: int | None = None
    gop: int | None = None


X265 = "log-level=none:keyint=12:bframes=3"
FORMATS = (
    Format("long_gop.mp4", "libx264", {"crf": "0", "g": "250", "bf": "3"}),
    Format("short_gop.mp4", "libx264", {"crf": "0", "g": "12", "bf": "3"}),
    Format("open_gop.mp4", "libx264", {"crf": "0", "x264-params": "keyint=12:open-gop=1:bframes=3:scenecut=0"}),
    Format("intra.mp4", "libx264", {"crf": "0", "g": "1"}),
    Format("variable.mp4", "libx264", {"crf": "0", "g": "15"}, times="uneven"),
    Format("late.mp4", "libx264", {"crf": "0", "g": "15"}, times="late"),
    Format("faststart.mp4", "libx264", {"crf": "0", "g": "15"}, container=(("movflags", "faststart"),)),
    Format("fragmented.mp4", "libx264", {"crf": "0", "g": "15"}, container=(("movflags", "frag_keyframe+empty_moov"),)),
    Format("matroska.mkv", "libx264", {"crf": "0", "g": "12"}),
    Format("transport.ts", "libx264", {"crf": "0", "g": "12"}),
    Format("program.mpg", "mpeg2video", {"q": "1"}, b_frames=2, gop=12),
    Format("raw.h264", "libx264", {"crf": "0", "g": "12"}),
    Format("plain.avi", "mpeg4", {"q": "1"}, b_frames=0, gop=12),
    Format("b_frames.avi", "mpeg4", {"q": "1"}, b_frames=2, gop=12),
    Format("long_b_frames.avi", "mpeg4", {"q": "1"}, b_frames=2, gop=250),
    Format("asp.mp4", "mpeg4", {"q": "1"}, b_frames=2, gop=12),
    Format("hevc.mp4", "libx265", {"x265-params": f"lossless=1:{X265}"}),
    Format("open_hevc.mp4", "libx265", {"x265-params": f"lossless=1:open-gop=1:{X265}"}),
    Format("vp9.webm", "libvpx-vp9", {"lossless": "1", "g": "12", "cpu-used": "8"}),
    Format("ten_bits.mp4", "libx264", {"crf": "0", "g": "12"}, pixels="yuv420p10le"),
    Format("full_range.mp4", "libx264", {"crf": "0", "g": "12"}, pixels="yuvj420p"),
    Format("alpha.webm", "libvpx-vp9", {"crf": "4", "b:v": "0", "cpu-used": "8"}, pixels="yuva420p"),
    Format("gray.mkv", "ffv1", {}, pixels="gray"),
    Format("odd.mkv", "ffv1", {}, pixels="yuv444p", size=(33, 65)),
    Format("motion_jpeg.avi", "mjpeg", {"q": "2"}, pixels="yuvj420p"),
    Format("animation.gif", "gif", {}, pixels="rgb8"),
)
TIMES = {
    "even": lambda number: 40 * number,
    "uneven": lambda number: 40 * number + (0, 13, -7, 20)[number % 4],
    "late": lambda number: 40 * number + 5000,
}


def numbered(n, size):
    """Gray frames that show their number as seven black or white bars."""
    height, width = size
    bits = torch.zeros(n, 8, dtype=torch.uint8)
    bits[:, :7] = (torch.arange(n)[:, None] >> torch.arange(7)) & 1
    bars = bits.repeat_interleave(width // 8, 1) * 255
    frames = torch.full((n, height, width, 3), 128, dtype=torch.uint8)
    frames[:, :, : bars.shape[1]] = bars[:, None, :, None]
    return frames


def numbers(frames):
    width = frames.shape[2] // 8
    bars = frames[:, :, : 8 * width].float().mean((1, 3)).unflatten(1, (8, width)).mean(2) > 128
    return (bars.long() << torch.arange(8)).sum(1).tolist()


def write(path, kind, n=LENGTH):
    with av.open(str(path), "w", options=dict(kind.container)) as container:
        stream = container.add_stream(kind.codec, rate=25, options=kind.options)
        stream.height, stream.width, stream.pix_fmt = *kind.size, kind.pixels
        if kind.b_frames is not None:
            stream.codec_context.max_b_frames = kind.b_frames
        if kind.gop is not None:
            stream.codec_context.gop_size = kind.gop
        if kind.times != "even":
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(numbered(n, kind.size).numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if kind.times != "even":
                frame.pts, frame.time_base = TIMES[kind.times](number), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    return {kind.name: write(folder / kind.name, kind) for kind in FORMATS}


@pytest.mark.parametrize("name", [kind.name for kind in FORMATS])
def test_every_frame_alone_and_any_together(videos, name):
    path = videos[name]
    assert count_frames(path) == LENGTH
    for index in range(LENGTH):
        assert numbers(read_frames(path, [index])) == [index]
    draw = random.Random(0)
    for _ in range(10):
        indices = draw.choices(range(LENGTH), k=draw.randint(1, 16))
        assert numbers(read_frames(path, indices)) == indices
    assert numbers(read_frames(path, range(LENGTH))) == list(range(LENGTH))
    height, width = next(kind.size for kind in FORMATS if kind.name == name)
    assert read_frames(path, [0]).shape == (1, height, width, 3)


def test_most_containers_are_sought_and_the_others_played(videos, monkeypatch):
    """What is sought does not decode the frames before the key frame: this is what makes it fast."""
    played = []
    play = decode._play
    monkeypatch.setattr(decode, "_play", lambda path, *rest: played.append(path.name) or play(path, *rest))
    for path in videos.values():
        read_frames(path, [LENGTH - 2])
    needed = {path.name for path in videos.values() if path.suffix == ".avi"} | {"raw.h264"}
    assert needed <= set(played) <= needed | {"transport.ts", "program.mpg"}  # whose seeks land late now and then


def test_real_files_frame_by_frame(real_videos):
    for path in sorted(real_videos.iterdir()):
        with av.open(str(path)) as container:
            plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]
        assert count_frames(path) == len(plain)
        for indices in ([len(plain) - 1], list(range(0, len(plain), 7)), [len(plain) // 2, 3, len(plain) // 3]):
            expected = np.stack([plain[index] for index in indices])
            assert np.array_equal(read_frames(path, indices).numpy(), expected), (path.name, indices)


@pytest.mark.parametrize(("pixels", "white"), [("yuv420p", 235), ("yuvj420p", 255)])
def test_white_is_white_in_either_range(tmp_path, pixels, white):
    path = tmp_path / "white.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 16, 16, pixels
        luma = np.full((24, 16), 128, np.uint8)
        luma[:16] = white
        container.mux(stream.encode(av.VideoFrame.from_ndarray(luma, format=pixels)))
        container.mux(stream.encode(None))
    assert read_frames(path, [0]).min() >= 254


def test_of_several_streams_ffmpegs_choice_is_read(real_videos):
    assert read_frames(real_videos / "nasa_13013.mp4", [0]).shape == (1, 270, 480, 3)
