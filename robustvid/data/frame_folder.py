"""Videos kept as folders of numbered images, one a frame: ``img_00001.jpg, img_00002.jpg, ...``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustvid.errors import DecodeError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def image_files(folder: str | Path) -> list[Path]:
    """Return the images of a folder in the order of the last number in their names.

    Raises:
        DecodeError: there are none, a name has no number, or two have the same.
    """
    files = [path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    numbers: dict[int, Path] = {}
    for path in sorted(files):
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            raise DecodeError(folder, f"{path.name} has no number; frames are named like img_00001.jpg")
        if (number := int(digits[-1])) in numbers:
            raise DecodeError(folder, f"{numbers[number].name} and {path.name} are the same frame; remove one of them")
        numbers[number] = path
    if not numbers:
        raise DecodeError(folder, f"it is a directory without frames; wanted {', '.join(sorted(IMAGE_SUFFIXES))} in it")
    return [numbers[number] for number in sorted(numbers)]


def read_images(folder: str | Path, indices: Sequence[int]) -> Tensor:
    """Return frames of a folder, uint8 RGB ``(len(indices), H, W, 3)``.

    Args:
        folder: the video.
        indices: places in the order of the numbers in the names, from 0, whatever number comes first.

    Raises:
        DecodeError: an image is missing or damaged, or they differ in size.
    """
    files = image_files(folder)
    if max(indices) >= len(files):
        raise DecodeError(folder, f"frame {max(indices)} was asked for, but there are only {len(files)} frames")
    images = {index: _read_image(folder, files[index]) for index in sorted(set(indices))}
    sizes = {tuple(image.shape[:2]) for image in images.values()}
    if len(sizes) > 1:
        raise DecodeError(folder, f"its frames are of different sizes, {sorted(sizes)}")
    return torch.stack([images[index] for index in indices])


def _read_image(folder: str | Path, file: Path) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(folder, f"{file.name} cannot be read: {error}") from None
    return torch.from_numpy(pixels)
