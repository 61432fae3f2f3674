"""Frames to a coded video, and through one, with PyAV (FFmpeg), which is imported on first use."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from robustvid.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def need_av() -> None:
    """Import PyAV.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"video files are read and written with PyAV, which is missing: {error}") from None


def encode(
    file: Path | io.BytesIO, frames: NDArray[np.uint8], fps: Fraction, *, codec: str, crf: int, pixel_format: str
) -> None:
    """Write frames, ``(T, H, W, 3)``, as a video; the same frames make the same file.

    Args:
        file: whose suffix chooses the container, or a buffer for an MP4 file.
        frames: uint8 RGB.
        fps: frames per second.
        codec: FFmpeg's name of the encoder.
        crf: constant rate factor, for encoders that know it.
        pixel_format: FFmpeg's name of the format that is encoded.
    """
    import av
    from av.video.reformatter import VideoReformatter

    with av.open(file, mode="w", format="mp4" if isinstance(file, io.BytesIO) else None) as container:
        options = {"crf": str(crf), "preset": "veryfast"}
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            # x264's AVX-512 routines write the same frames as another file now and then.
            options["x264-params"] = "asm=avx2"
        stream = container.add_stream(codec, rate=fps, options=options)
        if not isinstance(stream, av.VideoStream):
            raise ValueError(f"{codec} is not a video encoder")
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        for frame in frames:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(reformatter.reformat(rgb, format=pixel_format, threads=1)))
        container.mux(stream.encode(None))


def through_h264(frames: Tensor, crf: int) -> Tensor:
    """Return frames as they come back from an H.264 file with 4:2:0 colours.

    Args:
        frames: uint8 RGB, ``(T, H, W, 3)``; odd sizes are padded for the file.
        crf: constant rate factor, 0 (best) to 51 (worst).

    Raises:
        DataError: FFmpeg refuses such frames.
        MissingPackageError: PyAV is not installed.
    """
    need_av()
    import av
    from av.error import FFmpegError
    from av.video.reformatter import VideoReformatter

    height, width = frames.shape[1:3]
    even = pad(frames.permute(0, 3, 1, 2).float(), (0, width % 2, 0, height % 2), mode="replicate")
    pixels = even.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    file, reformatter = io.BytesIO(), VideoReformatter()
    try:
        encode(file, pixels, Fraction(25), codec="libx264", crf=crf, pixel_format="yuv420p")
        file.seek(0)
        with av.open(file, mode="r") as container:
            back = [reformatter.reformat(f, format="rgb24", threads=1).to_ndarray() for f in container.decode(video=0)]
    except (FFmpegError, ValueError) as error:
        raise DataError(f"frames of {width}x{height} pixels do not go through H.264: {error}") from error
    return torch.from_numpy(np.stack(back))[:, :height, :width]
