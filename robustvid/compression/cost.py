"""What a model costs: parameters, bytes, operations, and the time for a clip, models measured in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from robustvid.compression.prune import zeros
from robustvid.contracts import frozen
from robustvid.models.classifier import VideoClassifier
from robustvid.models.deployed import Deployed, twin_of

_WARM_UP, _SECONDS = 5, 3.0


class Size(NamedTuple):
    """How large a model is.

    Attributes:
        parameters: numbers in it; of an exported graph those of its twin.
        zeros: share of the weights of convolutions and linear layers that are zero.
        megabytes: of the weights, or of the graph, as they lie on the disk.
        gflops: operations of one clip in 1e9, two for each product and sum, zeros included.
    """

    parameters: int
    zeros: float
    megabytes: float
    gflops: float


class Latency(NamedTuple):
    """Milliseconds for one clip alone, and clips a second in batches of eight."""

    p50: float
    p95: float
    clips_per_second: float


def size(model: VideoClassifier) -> Size:
    """Return how large a model is."""
    float_model = twin_of(model) or model
    clip = float_model.card.clip
    with frozen(float_model), FlopCounterMode(display=False) as counter, torch.no_grad():
        float_model(torch.full((1, 3, clip.length, *clip.size), 0.5, device=float_model.mean.device))
    return Size(
        sum(parameter.numel() for parameter in float_model.parameters()),
        zeros(float_model),
        _bytes(model) / 1e6,
        counter.get_total_flops() / 1e9,
    )


def latencies(models: Mapping[str, VideoClassifier], threads: int = 1) -> dict[str, Latency]:
    """Time models of one shape of clip in turns, so that what else the machine does meets all of them alike.

    Args:
        models: by name, each on its device; frozen meanwhile.
        threads: CPU threads that torch and the runtimes use.

    Returns:
        For each name the wall-clock time of a forward, of about three seconds for each model.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        singles, eights = ({name: _inputs(model, count) for name, model in models.items()} for count in (1, 8))
        one, many = _in_turns(models, singles), _in_turns(models, eights)
    finally:
        torch.set_num_threads(before)
    return {
        name: Latency(
            1000 * float(np.percentile(one[name], 50)),
            1000 * float(np.percentile(one[name], 95)),
            8 / float(np.median(many[name])),
        )
        for name in models
    }


def _in_turns(models: Mapping[str, VideoClassifier], clips: Mapping[str, Tensor]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in models}
    order = random.Random(0)
    deadline = time.perf_counter() + _SECONDS * len(models) / 2
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(frozen(model))
        stack.enter_context(torch.inference_mode())
        round_ = 0
        while round_ < 2 * _WARM_UP or time.perf_counter() < deadline:
            for name in order.sample(list(models), len(models)):  # so that none always follows the same other
                begin = time.perf_counter()
                models[name](clips[name])
                if clips[name].is_cuda:
                    torch.cuda.synchronize(clips[name].device)
                if round_ >= _WARM_UP:
                    times[name].append(time.perf_counter() - begin)
            round_ += 1
    return times


def _inputs(model: VideoClassifier, count: int) -> Tensor:
    clip = model.card.clip
    noise = torch.rand(count, 3, clip.length, *clip.size, generator=torch.Generator().manual_seed(0))
    return noise.to(model.mean.device)


def _bytes(model: VideoClassifier) -> int:
    if isinstance(model.network, Deployed):
        return sum(len(content) for content in model.network.graph.files.values())
    return sum(
        value.numel() * value.element_size() for value in model.state_dict().values() if isinstance(value, Tensor)
    )
