"""Red flags: reasons not to believe a robust accuracy. Each is explained in docs/flags.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustvid.evaluation.fast import AGREEMENT, spread
from robustvid.evaluation.verdict import Judge, LoadedClip, as_batch
from robustvid.losses import margin


class Flag(NamedTuple):
    """One reason for doubt: a name that docs/flags.md explains, and what was seen."""

    flag: str
    detail: str


def audit_model(judge: Judge, clips: Sequence[LoadedClip]) -> list[dict[str, str]]:
    """Look at a model, before any attack, for what makes robust numbers meaningless.

    Args:
        judge: holds the probed model, and the surrogate if there is one, whose gradient is the one that counts.
        clips: a few clips, at least two.

    Returns:
        The flags raised, as plain dictionaries.
    """
    pixels = as_batch(clips, judge.device)
    labels = torch.tensor([clip.label for clip in clips], device=judge.device)
    network = judge.probe.model
    # Every other clip first: each clip meets other company in the model's call than before.
    order = torch.cat([torch.arange(start, len(clips), 2) for start in (0, 1)]).to(judge.device)
    with torch.no_grad():
        logits, moved = judge.probe(pixels), judge.probe(pixels[order])
        batch_dependent = _batch_dependent(logits[order], moved)
        # Only a model that answered otherwise can be one that answers at random.
        random_output = batch_dependent and _random_output(logits, judge.probe(pixels))
    checks = [
        random_output,
        batch_dependent,
        _probabilities(logits),
        _zero_gradient(judge.climbed, pixels[: judge.probe.lanes], labels[: judge.probe.lanes]),
        _training_mode(network),
    ]
    return [flag._asdict() for flag in checks if flag is not None]


def audit_results(
    clean: Mapping[str, float],
    chance: float,
    broken: Mapping[str, Mapping[str, Sequence[int]]],
    unseen: Mapping[str, Sequence[tuple[int, int]]],
) -> list[dict[str, str]]:
    """Look at results for what contradicts itself.

    Args:
        clean: ``correct``, ``lo`` and ``hi`` of the clean accuracy.
        chance: accuracy of a guess.
        broken: for each threat, for each attack that met every clip, how many clips it broke at each budget.
        unseen: for each threat, for each budget, how many clips an attack without gradients broke and none with
            gradients did, and of how many clips.

    Returns:
        The flags raised, as plain dictionaries.
    """
    flags = []
    if clean["lo"] <= chance:
        flags.append(
            Flag("no-better-than-chance", f"clean accuracy {clean['lo']:.1%} to {clean['hi']:.1%}, chance {chance:.1%}")
        )
    for threat, attacks in broken.items():
        single, iterated = attacks.get("fgsm"), attacks.get("pgd")
        if single is not None and iterated is not None:
            worse = [cell for cell, (one, many) in enumerate(zip(single, iterated, strict=True)) if one > many]
            if worse:
                flags.append(
                    Flag("fgsm-beats-pgd", f"{threat}: FGSM breaks more clips than PGD at {len(worse)} of the budgets")
                )
    flags += [flag for threat, cells in unseen.items() if (flag := _masked_gradient(threat, cells)) is not None]
    return [flag._asdict() for flag in flags]


def audit_skipping(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the flag that is raised where an attack broke a clip in a budget that the search had skipped."""
    if not audit["wrong"]:
        return []
    detail = f"{audit['wrong']} of {audit['checked']} skipped measurements, made after all, broke the clip"
    return [Flag("skipping-was-wrong", detail)._asdict()]


def _masked_gradient(threat: str, cells: Sequence[tuple[int, int]]) -> Flag | None:
    """The rule of AutoAttack, 0.2 points of accuracy, and at least two clips: one can be luck in a small sample."""
    worst, clips = max(cells, default=(0, 0))
    if worst < 2 or worst <= 0.002 * clips:
        return None
    detail = f"{threat}: attacks without gradients break {worst} of {clips} clips that those with gradients leave"
    return Flag("black-box-beats-white-box", detail)


def _random_output(logits: Tensor, again: Tensor) -> Flag | None:
    change = _change(logits, again)
    return (
        None if change <= AGREEMENT else Flag("random-output", f"the same clips twice: logits differ by {change:.2g}")
    )


def _batch_dependent(logits: Tensor, elsewhere: Tensor) -> Flag | None:
    change = _change(logits, elsewhere)
    detail = f"the same clips in another order: logits differ by {change:.2g}"
    return None if change <= AGREEMENT else Flag("batch-dependent", detail)


def _probabilities(logits: Tensor) -> Flag | None:
    sums = logits.sum(1)
    looks = bool((logits >= 0).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
    return Flag("probabilities", "outputs are non-negative and sum to 1") if looks else None


def _zero_gradient(model: nn.Module, clips: Tensor, labels: Tensor) -> Flag | None:
    try:
        with torch.enable_grad():
            leaf = clips.clone().requires_grad_()
            (grad,) = torch.autograd.grad(margin(model(leaf), labels).sum(), leaf)
    except RuntimeError as error:
        return Flag("no-gradient", f"autograd: {str(error).splitlines()[0]}")
    if not torch.isfinite(grad).all():
        return Flag("no-gradient", "the gradient has NaN or infinite values")
    frames = grad.abs().amax((1, 3, 4)) == 0
    if not bool(frames.any()):
        return None
    return Flag(
        "no-gradient", f"zero gradient in {float(frames.float().mean()):.0%} of the frames of {len(clips)} clips"
    )


def _training_mode(model: nn.Module) -> Flag | None:
    names = [name for name, module in model.named_modules() if module.training]
    return Flag("training-mode", f"eval() leaves {len(names)} modules in training mode: {names[0]}") if names else None


def _change(logits: Tensor, again: Tensor) -> float:
    return float(((logits - again).abs().amax(1) / spread(logits)).max())
