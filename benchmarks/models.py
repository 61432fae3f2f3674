"""Models, clips, passes and a clock for measurements of speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustvid as rv
from robustvid.evaluation.fast import stopwatch
from robustvid.evaluation.sweep import choose_clips
from robustvid.models.classifier import VideoClassifier

CLASSES = tuple(f"class {number}" for number in range(10))
BATCH = 16  # clips attacked at once: an eighth faster than 64 on a CPU, whose caches it fits
R3D = rv.ClipSpec(frames=8, stride=1, size=(112, 112))


class Noise:
    """Smooth random videos; the label is what a model makes of each."""

    name, split, classes = "noise", "test", CLASSES

    def __init__(self, model: VideoClassifier | None, count: int, clip: rv.ClipSpec) -> None:
        self.frames = [_smooth(number, clip) for number in range(count)]
        self.labels = [0] * count
        if model is not None:
            with torch.no_grad():
                self.labels = [int(model(as_clip(frames)).argmax()) for frames in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, index: int, clip: rv.ClipSpec) -> rv.Sample:  # noqa: ARG002  one clip of each
        """Return one clip."""
        return rv.Sample(str(index), self.frames[index], self.labels[index])


class Some:
    """Some videos of a dataset, in the order given."""

    def __init__(self, data: rv.VideoDataset, places: Sequence[int]) -> None:
        self.name, self.split, self.classes, self.data, self.places = data.name, data.split, data.classes, data, places

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, index: int, clip: rv.ClipSpec) -> rv.Sample:
        """Return one clip."""
        return self.data.sample(self.places[index], clip)


def _smooth(seed: int, clip: rv.ClipSpec) -> Tensor:
    coarse = torch.rand(1, 3, 4, 7, 7, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (clip.length, *clip.size), mode="trilinear")
    return (255 * fine[0]).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def as_clip(frames: Tensor) -> Tensor:
    """Return frames ``(T, H, W, 3)`` as a batch of one clip in [0, 1]."""
    return frames.permute(3, 0, 1, 2)[None].float() / 255


def video_model(name: str, clip: rv.ClipSpec) -> VideoClassifier:
    """Return a video model of torchvision with random weights, BatchNorm statistics, where it has any, from noise."""
    from torchvision.models import video

    torch.manual_seed(0)
    card = rv.ModelCard(name, "torchvision", CLASSES, clip, (0.43, 0.39, 0.38), (0.23, 0.22, 0.22))
    model = VideoClassifier(getattr(video, name)(weights=None, num_classes=len(CLASSES)), card).train()
    if any(isinstance(module, nn.BatchNorm3d) for module in model.modules()):
        for number in range(4):
            with torch.no_grad():
                model(torch.cat([as_clip(_smooth(1000 + 4 * number + i, clip)) for i in range(4)]))
    return model.eval()


def load(name: str, count: int) -> tuple[VideoClassifier, rv.VideoDataset]:
    """Return a model of the zoo on motion10, or ``r3d_18`` on noise that it is right about."""
    if name == "r3d_18":
        model = video_model(name, R3D)
        return model, Noise(model, count, R3D)
    return rv.load_model(name), rv.load_data("motion10")


def clips_of(model: VideoClassifier, data: rv.VideoDataset, count: int) -> tuple[Tensor, Tensor]:
    """Return the clips that ``robustvid attack --clips COUNT`` draws, ``(B, 3, T, H, W)``, and their labels."""
    samples = [data.sample(index, model.card.clip) for index in choose_clips(len(data), count, seed=0)]
    return torch.cat([as_clip(sample.frames) for sample in samples]), torch.tensor([s.label for s in samples])


def bare(model: nn.Module, clips: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Do the passes of PGD, so many forwards and backwards and one last forward, and nothing else."""
    for _ in range(steps):
        leaf = clips.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    with torch.no_grad():
        model(clips)
    return clips


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long one call takes: of the CPU's own time on a CPU."""
    clock = stopwatch(device)
    begin = clock()
    work()
    return clock() - begin
