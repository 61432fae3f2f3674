"""How fast attacks are on one model, one dataset and this machine, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from robustvid.budget import Budget
from robustvid.contracts import VideoDataset
from robustvid.evaluation.cards import load_attack
from robustvid.evaluation.checks import check_models
from robustvid.evaluation.fast import ask, fastest, in_bf16, stopwatch
from robustvid.evaluation.machine import lent, pick_device
from robustvid.evaluation.probe import Probe, lanes_on
from robustvid.evaluation.verdict import as_batch, load_clip
from robustvid.models.classifier import VideoClassifier

_STEPS, _ROUNDS = 10, 3


def bench(model: VideoClassifier, data: VideoDataset, device: str | torch.device | None = None) -> dict[str, Any]:
    """Time what a sweep is made of, on one CPU thread or a GPU.

    Args:
        model: the classifier; it comes back as it was.
        data: where clips are read from, as many as go through the model at once.
        device: where to run; a GPU when there is one.

    Returns:
        ``clips`` at once; milliseconds a clip: ``read_ms``, and of ``given`` and of ``fast``, which attacks get,
        ``forward_ms`` and ``pass_ms``, a forward and a backward to the clip, and of ``bf16``, what ``--precision bf16``
        gives those that climb a gradient; ``path`` and ``bf16_path``, what the last two are; and ``loop``, the time of
        PGD-10 as a multiple of its bare forwards and backwards. Of the CPU's own time on a CPU.

    Raises:
        ModelError: model and data disagree on the classes.
        RunError: there is no such device.
    """
    check_models(model, data, None)
    place = pick_device(device)
    lanes = min(lanes_on(place), len(data))
    load_clip(data, 0, model.card.clip)  # imports the decoder
    begin = time.perf_counter()
    clips = [load_clip(data, index, model.card.clip) for index in range(lanes)]
    read = time.perf_counter() - begin
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with lent([model], place):
            pixels = as_batch(clips, place)
            choice = fastest(model, pixels)
            lower = in_bf16(choice, pixels)
            times = {}
            for name, network in (("given", model), ("fast", choice.model), ("bf16", lower.model)):
                with torch.no_grad():
                    forward = min(_seconds(partial(network, pixels), place) for _ in range(_ROUNDS))
                both = min(ask(network, pixels).seconds for _ in range(_ROUNDS))
                times[name] = {"forward_ms": 1000 * forward / lanes, "pass_ms": 1000 * both / lanes}
            attack = load_attack("pgd", steps=_STEPS)
            probe = Probe(choice.model, lanes, surrogate=True)  # a surrogate: attacks spend all their steps on it
            labels = torch.tensor([clip.label for clip in clips], device=place)
            eps, seeds = Budget("linf", frame=8 / 255), torch.arange(lanes)
            own = min(_seconds(lambda: attack(probe, pixels, labels, eps, seeds), place) for _ in range(_ROUNDS))
    finally:
        torch.set_num_threads(threads)
    fast = times["fast"]
    bare = lanes * (_STEPS * fast["pass_ms"] + fast["forward_ms"]) / 1000
    return {
        "model": model.card.name,
        "device": str(place),
        "clips": lanes,
        "read_ms": 1000 * read / lanes,
        **times,
        "path": choice.facts,
        "bf16_path": lower.facts,
        "loop": own / bare,
    }


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = stopwatch(device)
    begin = clock()
    work()
    return clock() - begin
