"""How a clip is laid out for code that knows images alone, and the model that answers for such images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustvid.errors import AttackError

STRIP, SHEET, FRAMES, CLIP, FILM = "strip", "sheet", "frames", "clip", "film"
LAYOUTS = {
    STRIP: "frames below one another, (B, 3, T·H, W)",
    SHEET: "frames side by side and below one another on a square, (B, 3, S, S)",
    FRAMES: "each frame an image of its own, (B·T, 3, H, W)",
    CLIP: "the clip as it is, (B, 3, T, H, W)",
    FILM: "channels last, (B, T, H, W, 3)",
}


@dataclass(frozen=True)
class Layout:
    """One way to show clips ``(B, 3, T, H, W)`` as images; ``fold(show(clips))`` gives the clips back bit for bit.

    Attributes:
        name: a key of :data:`LAYOUTS`.
        frames: T.
        height: H.
        width: W.
    """

    name: str
    frames: int
    height: int
    width: int

    @property
    def images(self) -> int:
        """Return how many images a clip becomes."""
        return self.frames if self.name == FRAMES else 1

    def show(self, clips: Tensor) -> Tensor:
        """Return the clips as contiguous images of their own memory."""
        match self.name:
            case "strip":
                images = clips.flatten(2, 3)
            case "sheet":
                images = self._sheet(clips)
            case "frames":
                images = clips.transpose(1, 2).flatten(0, 1)
            case "film":
                images = clips.permute(0, 2, 3, 4, 1)
            case _:
                images = clips
        return images.detach().clone(memory_format=torch.contiguous_format)

    def fold(self, images: Tensor) -> Tensor:
        """Return the images as clips, differentiably.

        Raises:
            AttackError: some frames of a clip are missing.
        """
        match self.name:
            case "strip":
                clips: Tensor = images.unflatten(2, (self.frames, self.height))
                return clips
            case "sheet":
                return self._cut(images)
            case "frames":
                return self._stack(images)
            case "film":
                return images.permute(0, 4, 1, 2, 3)
        return images

    def _grid(self) -> tuple[int, int]:
        """Return the rows and columns that need the smallest square."""
        columns = min(
            range(1, self.frames + 1),
            key=lambda count: max(math.ceil(self.frames / count) * self.height, count * self.width),
        )
        return math.ceil(self.frames / columns), columns

    def _sheet(self, clips: Tensor) -> Tensor:
        rows, columns = self._grid()
        side = max(rows * self.height, columns * self.width)
        padded = F.pad(clips, (0, 0, 0, 0, 0, rows * columns - self.frames), value=0.5)
        sheet = padded.unflatten(2, (rows, columns)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return F.pad(sheet, (0, side - sheet.shape[3], 0, side - sheet.shape[2]), value=0.5)

    def _cut(self, sheet: Tensor) -> Tensor:
        rows, columns = self._grid()
        used = sheet[:, :, : rows * self.height, : columns * self.width]
        cells: Tensor = used.unflatten(2, (rows, self.height)).unflatten(4, (columns, self.width)).transpose(3, 4)
        return cells.flatten(2, 3)[:, :, : self.frames]

    def _stack(self, images: Tensor) -> Tensor:
        if len(images) % self.frames:
            raise AttackError(f"{len(images)} images are no whole number of clips of {self.frames} frames")
        if images.shape[-2:] != (self.height, self.width):  # input diversity makes every frame square
            images = F.interpolate(images, size=(self.height, self.width), mode="bilinear", align_corners=False)
        # Not a transpose: the backward of unbind and stack is contiguous, as libraries that call view() expect.
        return torch.stack(images.unflatten(0, (-1, self.frames)).unbind(1), dim=2)


class Window(nn.Module):
    """What a library sees of a model: logits for images, and nothing of the model to change.

    The model is no submodule, so that a library can neither switch its mode nor reach its parameters. Images may come
    on another device or in another precision than the clips; the logits go back to where the images are. With one
    image a frame, every frame of a clip gets the clip's logits.
    """

    def __init__(self, model: nn.Module, layout: Layout, like: Tensor, *, probabilities: bool = False) -> None:
        super().__init__()
        self._model = (model,)
        self._layout = layout
        self._like = like[:0]
        self._probabilities = probabilities
        # Libraries read the device from the first parameter.
        self.anchor = nn.Parameter(torch.zeros((), device=like.device), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, or probabilities, one row an image."""
        logits: Tensor = self._model[0](self._layout.fold(images.to(self._like)))
        if self._probabilities:
            logits = logits.softmax(1)
        # A copy: some libraries overwrite the logits they get.
        return logits.repeat_interleave(self._layout.images, 0).to(images.device).clone()
