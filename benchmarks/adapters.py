"""What a step of an attack costs on torchvision's and Hugging Face's video classifiers.

    python -m benchmarks.adapters

Random weights; one clip of each model's own frames and size; forward alone, and forward with the gradient of the
pixels, which is a step of PGD; one thread, best of three. Each model is first held to `robustvid.testing.check_model`
(--no-check leaves that out). Base sizes of the papers for Hugging Face, V-JEPA 2 with 16 frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

import robustvid as rv
from benchmarks import command_line
from robustvid.models.huggingface import FAMILIES, build
from robustvid.models.torchvision import PROTOCOLS
from robustvid.testing import check_model

VITS = {"vjepa2": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "frames_per_clip": 16}}
FRAMES = {"videomae": 16, "timesformer": 8, "vivit": 32, "vjepa2": 16}


def models() -> Iterator[tuple[str, rv.VideoClassifier]]:
    """Yield every model with random weights."""
    for name in sorted(PROTOCOLS):
        frames = ",frames=16" if name == "s3d" else ""
        yield f"torchvision:{name}", rv.load_model(f"torchvision:{name}:weights=random{frames}")
    classes = tuple(map(str, range(400)))
    for name, family in FAMILIES.items():
        size = 256 if name == "vjepa2" else 224
        config = {"model_type": name, family.frames: FRAMES[name], family.size: size, **VITS.get(name, {})}
        spec = rv.ClipSpec(FRAMES[name], family.stride, (size, size))
        card = rv.ModelCard(name, "huggingface", classes, spec, options={"config": config})
        yield f"hf: {name}", rv.VideoClassifier(build(400, config), card).eval()


def best(work: Callable[[], object], times: int = 3) -> float:
    """Return the least milliseconds that ``work`` took."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return 1000 * min(taken)


def main() -> None:
    """Print a table, a line a model."""
    parser = command_line("adapters", __doc__)
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--only", default="", help="Names that contain this.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    budget, seeds, pgd = rv.Budget("linf", "8/255"), torch.zeros(1, dtype=torch.int64), rv.load_attack("pgd:steps=1")
    print(
        "| model | M parameters | clip | contract | forward, ms | forward and gradient, ms |\n|---|---|---|---|---|---|"
    )
    for name, model in models():
        if given.only not in name:
            continue
        clip = model.card.clip
        if not given.no_check:
            check_model(model)
        clips = torch.rand(1, 3, clip.length, *clip.size)
        with torch.no_grad():
            labels = model(clips).argmax(1)
            forward = best(lambda: model(clips))  # noqa: B023  called at once

        def step() -> None:
            leaf = clips.clone().requires_grad_()  # noqa: B023
            torch.autograd.grad(rv.losses.cross_entropy(model(leaf), labels).sum(), leaf)  # noqa: B023

        with rv.frozen(model):
            both = best(step)
            size = float(budget.size(pgd(model, clips, labels, budget, seeds) - clips).max())
        assert 0 < size <= 1
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        held = "not checked" if given.no_check else "held"
        shape = f"{clip.frames}x{clip.size[0]}x{clip.size[1]}"
        print(f"| {name} | {parameters:.1f} | {shape} | {held} | {forward:.0f} | {both:.0f} |", flush=True)


if __name__ == "__main__":
    main()
