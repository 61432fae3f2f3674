"""Videos of noise, labelled by a linear toy model: measured in milliseconds, with curves that fall."""

import torch
from torch import nn

import robustvid as rv
from robustvid.leaderboard.boards import protocol_of, protocol_text
from robustvid.models.classifier import VideoClassifier

CLASSES = ("a", "b", "c", "d")
SPEC = rv.ClipSpec(4, 2, (8, 8))


class Noise:
    name, split, classes, digest = "noise", "test", CLASSES, "noise-v1"

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 16

    def sample(self, index, clip):
        generator = torch.Generator().manual_seed(index)
        frames = torch.randint(0, 256, (clip.frames, *clip.size, 3), generator=generator, dtype=torch.uint8)
        with torch.no_grad():
            label = int(self.model(frames.permute(3, 0, 1, 2)[None] / 255).argmax())
        return rv.Sample(f"s{index}", frames, label if index % 8 else (label + 1) % 4)


def toy_model(name="toy", seed=0):
    linear = nn.Linear(3 * 4 * 8 * 8, 4, bias=False)
    with torch.no_grad():
        linear.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    card = rv.ModelCard(name, "linear", CLASSES, SPEC, (0.5,) * 3, (0.5,) * 3)
    return VideoClassifier(nn.Sequential(nn.Flatten(), linear), card)


RADII = ("1/510", "1/255", "2/255", "4/255")
BUDGETS = [rv.Budget("linf", radius) for radius in RADII]


def protocol(results, **changes):
    """Return the text of the board whose protocol a run follows, but for the changes."""
    return protocol_text(protocol_of(results, headline=BUDGETS[2].describe()) | changes)
