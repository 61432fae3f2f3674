"""Clean accuracy on a test split: what one looks at after training."""

from __future__ import annotations

from typing import NamedTuple

import torch

from robustvid.contracts import VideoDataset, frozen
from robustvid.data.batches import evaluation_batches
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
        for clips, labels in evaluation_batches(data, model.card.clip, batch_size=batch_size):
            logits = model(clips.to(device))
            correct += int((logits.argmax(1).cpu() == labels).sum())
    return Accuracy(correct, len(data))
