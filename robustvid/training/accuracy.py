"""Clean accuracy on a test split: what one looks at after training."""

from __future__ import annotations

from typing import NamedTuple

import torch

from robustvid.contracts import VideoDataset, frozen
from robustvid.data.transforms import to_clips
from robustvid.models.classifier import VideoClassifier


class Accuracy(NamedTuple):
    """So many of so many clips."""

    correct: int
    n: int


def clean_accuracy(model: VideoClassifier, data: VideoDataset, batch_size: int = 50) -> Accuracy:
    """Count the clips that the model gets right, one clip per video, cut as its card says.

    Args:
        model: left as it was.
        data: labelled videos.
        batch_size: clips at a time.
    """
    device, correct = model.mean.device, 0
    with frozen(model), torch.inference_mode():
        for numbers in torch.arange(len(data)).split(batch_size):
            samples = [data.sample(int(number), model.card.clip) for number in numbers]
            labels = torch.tensor([sample.label for sample in samples])
            logits = model(to_clips([sample.frames for sample in samples]).to(device))
            correct += int((logits.argmax(1).cpu() == labels).sum())
    return Accuracy(correct, len(data))
