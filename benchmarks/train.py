"""What does the training loop cost beside a bare loop that makes the same forwards and backwards?

    python -m benchmarks.train
    OMP_NUM_THREADS=1 python -m benchmarks.train --files    # what decoding ahead saves, with a core to spare

Both train ``conv3d`` on the same decoded videos, with PGD of 5 steps and an update a batch, in turn in one process; the
ratio of every pair is taken, and the median told. Validation and states on the disk are left out on both sides. With
``--files`` both sides are robustvid's, train on video files, and differ in whether batches are decoded ahead.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
import torch.nn.functional as F

import robustvid as rv
from benchmarks import command_line
from benchmarks.models import Some
from robustvid.contracts import VideoDataset
from robustvid.data.batches import Videos, load_videos, training_batches
from robustvid.training import loop

EPS, STEPS, BATCH = 8 / 255, 5, 32


def bare(model: rv.VideoClassifier, videos: Videos, count: int, seed: int) -> float:
    """Return clips per second of the plainest loop there is."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=1e-2)
    begin = time.perf_counter()
    batches = training_batches(videos, model.card.clip, BATCH, seed, 0, roll=True, among=range(count))
    for clips, labels in batches:
        x = clips.to(memory_format=torch.channels_last_3d)
        model.eval().requires_grad_(False)
        found = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            found.requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(model(found), labels, reduction="sum"), found)
            found = (x + (found.detach() + 0.3 * EPS * grad.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        model.train().requires_grad_(True)
        optimizer.zero_grad()
        F.cross_entropy(model(found), labels).backward()
        optimizer.step()
    return count / (time.perf_counter() - begin)


def ours(
    model: rv.VideoClassifier, data: VideoDataset, seed: int, objective: str = f"pgd:steps={STEPS},step_size=0.3"
) -> float:
    """Return clips per second of :func:`robustvid.train`."""
    plan = rv.TrainingPlan(
        1, BATCH, seed=seed, objective=objective, threats=("linf frame 8/255",), holdout=0, roll=True
    )
    rates = []
    rv.train(model, data, plan, progress=lambda told: rates.append(told.clips_per_second))
    return rates[-1]


def with_files(model: rv.VideoClassifier, pairs: int) -> None:
    """Train on video files, with batches decoded ahead and with each decoded when it is due."""
    data, early = rv.load_data("motion10", split="train"), loop.ahead
    for objective in ("natural", "n-fgsm"):
        ratios = []
        for pair in range(pairs):
            rates = []
            for loop.ahead in (iter, early):
                rates.append(ours(model, data, pair, objective))
            ratios.append(rates[1] / rates[0])
            print(
                f"{objective}: when due {rates[0]:.1f} clips/s, ahead {rates[1]:.1f}, ratio {ratios[-1]:.3f}",
                flush=True,
            )
        print(f"{objective}: median ratio {statistics.median(ratios):.3f} of {pairs} pairs")


def main() -> None:
    """Measure and print one line for each pair, then the median ratio."""
    parser = command_line("train", __doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--files", action="store_true", help="measure what decoding ahead saves instead")
    given = parser.parse_args()
    if given.files:
        with_files(rv.load_model("conv3d"), given.pairs)
        return
    model, data = rv.load_model("conv3d"), rv.load_data("motion10", split="train")
    videos = load_videos(data)
    loop.training_batches = lambda _, *rest, **more: training_batches(videos, *rest, **more)  # decoded for both sides
    ratios = []
    for pair in range(given.pairs):
        plain, own = bare(model, videos, given.clips, pair), ours(model, Some(data, range(given.clips)), pair)
        ratios.append(own / plain)
        print(f"bare {plain:.1f} clips/s, robustvid.train {own:.1f} clips/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} of {given.pairs} pairs")


if __name__ == "__main__":
    main()
