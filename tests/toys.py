"""A dataset that two epochs suffice for, and a small network."""

import torch

from robustvid.contracts import ClipSpec, ModelCard, Sample
from robustvid.models.classifier import new_classifier

CLIP = ClipSpec(4, 1, (16, 16))


class Brightness:
    """Noise, dark or bright."""

    name, split, classes, digest = "brightness", "train", ("dark", "bright"), "0" * 64

    def __init__(self, split="train", root=None, count=36):
        self.split, self.count = split, count

    def __len__(self):
        return self.count

    def sample(self, index, clip):
        generator = torch.Generator().manual_seed(index)
        shape = (clip.frames, *clip.size, 3)
        frames = torch.randint(0, 128, shape, generator=generator, dtype=torch.uint8) + 100 * (index % 2)
        return Sample(str(index), frames, index % 2)


def small_model():
    torch.manual_seed(0)
    options = {"widths": [4, 4, 4, 4]}
    card = ModelCard("test", "conv3d", Brightness.classes, CLIP, (0.5,) * 3, (0.25,) * 3, options)
    return new_classifier(card)


def nothing(model, clips, labels, budget, seeds):
    """An attack that gives up."""
    return clips.clone()


def opposite(model, clips, labels, budget, seeds):
    """An attack that makes dark clips bright and bright clips dark."""
    change = torch.where(labels == 0, 0.4, -0.4)[:, None, None, None, None]
    return (clips + change).clamp(0, 1)
