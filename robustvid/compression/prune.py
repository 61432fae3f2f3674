"""Pruning: weights set to zero, chosen by size or learnt under a robust loss, and channels taken out for good."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from robustvid.contracts import VideoDataset
from robustvid.errors import MissingPackageError, ModelError
from robustvid.models.checkpoint import load_checkpoint, save_checkpoint
from robustvid.models.classifier import VideoClassifier, last_layer, new_classifier, weights_digest
from robustvid.models.slim import cut_channels
from robustvid.training.loop import TrainingProgress, train
from robustvid.training.plan import TrainingPlan

SCOPES = ("global", "layer")
_LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def prune_weights(model: VideoClassifier, amount: float, *, scope: str = "global") -> VideoClassifier:
    """Return a copy in which the smallest weights of convolutions and linear layers are zero.

    Its size in memory and its speed stay as they were: zeros are multiplied like other numbers. Train it further with
    ``TrainingPlan(keep_zeros=True)``.

    Args:
        model: stays as it is.
        amount: share of these weights that become zero, above 0 and below 1.
        scope: ``"global"`` compares all weights, ``"layer"`` prunes every layer alike.

    Raises:
        ModelError: the amount is no such share, or there is no such scope.

    References:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", arXiv:1506.02626.
    """
    _check_amount(amount)
    if scope not in SCOPES:
        raise ModelError(f"scope={scope!r}: wanted one of {', '.join(SCOPES)}")
    pruned = copy.deepcopy(model)
    weights = [(layer, "weight") for layer in prunable(pruned)]
    if scope == "global":
        torch_prune.global_unstructured(weights, torch_prune.L1Unstructured, amount=amount)
    else:
        for layer, name in weights:
            torch_prune.l1_unstructured(layer, name, amount)
    for layer, name in weights:
        torch_prune.remove(layer, name)
    return noted(pruned, {"step": "prune", "kind": "weights", "scope": scope, "amount": amount})


def prune_channels(model: VideoClassifier, amount: float) -> VideoClassifier:
    """Return a smaller network without the channels whose weights are smallest: really smaller, and really faster.

    Every layer but the last loses the same share, and what channels depend on goes with them. What is left knows little
    until it is trained further.

    Args:
        model: stays as it is.
        amount: share of the channels to remove, above 0 and below 1.

    Raises:
        ModelError: the amount is no such share, or the network cannot be followed, as those with recurrent layers.
        MissingPackageError: torch-pruning is not installed.

    References:
        Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900.
    """
    _check_amount(amount)
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingPackageError(
            f"channels are removed with torch-pruning, which is missing ({error}): pip install 'robustvid[deploy]'"
        ) from None
    card, pruned = model.card, copy.deepcopy(model).cpu().eval()
    head = last_layer(pruned)
    try:
        torch_pruning.pruner.BasePruner(
            pruned.network,
            torch.rand(1, 3, card.clip.frames, *card.clip.size),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=amount,
            ignored_layers=[head],
        ).step()
        with torch.no_grad():
            pruned(torch.rand(1, 3, card.clip.length, *card.clip.size))
    except Exception as error:  # whatever a library says of a network that it cannot follow
        raise ModelError(
            f"torch-pruning cannot follow {card.name} ({card.arch}) to remove channels, recurrent layers among others; "
            f"zero its weights instead (--how weights or learnt). It says: {error!r}"
        ) from error
    arch, options = (
        (card.options["arch"], card.options["options"]) if card.arch == "slim" else (card.arch, dict(card.options))
    )
    with torch.random.fork_rng([]):
        whole = new_classifier(replace(card, arch=arch, options=options))
    channels = cut_channels(whole.network, pruned.network)
    slim = new_classifier(replace(card, arch="slim", options={"arch": arch, "options": options, "channels": channels}))
    slim.load_state_dict(pruned.state_dict())
    return noted(slim.to(model.mean.device).eval(), {"step": "prune", "kind": "channels", "amount": amount})


def learn_masks(
    model: VideoClassifier,
    data: VideoDataset,
    amount: float,
    plan: TrainingPlan,
    *,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> VideoClassifier:
    """Return a copy in which the weights are zero that a robust loss can spare best.

    Every weight gets a score; those with the largest |score| of each layer are kept in forwards, and scores follow the
    gradient of the training loss straight through that choice, while the weights stand still. Scores begin as
    |w| / max |w|; the paper scales them by the layer's fan-in and descends with SGD, here AdamW does.

    Args:
        model: stays as it is.
        data: training split.
        amount: share of the weights of each convolution and linear layer that become zero.
        plan: how scores are learnt; its objective should be a robust one.
        out: folder in which the result is kept; what is there already is not learnt again. Nothing is written when
            None.
        device: where to train; a GPU when there is one.
        progress: called after every update.

    Raises:
        ModelError: the amount is no such share, or ``out`` holds what came of another model, amount or plan.

    References:
        Sehwag et al., "HYDRA: Pruning Adversarially Robust Neural Networks", arXiv:2002.10509.
    """
    _check_amount(amount)
    told = asdict(plan) | {"threats": list(plan.threats)}
    step = {"step": "prune", "kind": "learnt", "amount": amount, "plan": told, "of": weights_digest(model)}
    if out is not None and Path(out).is_dir():
        kept = load_checkpoint(out)
        if not kept.card.lineage or kept.card.lineage[-1] != step:
            raise ModelError(f"{out} holds masks of another model, amount or plan; remove it, or give another folder")
        return kept
    scored = copy.deepcopy(model).requires_grad_(False)
    for layer in prunable(scored):
        parametrize.register_parametrization(layer, "weight", _Scored(layer.weight, amount))
    learnt = train(scored, data, plan, device=device, progress=progress)
    for layer in prunable(learnt):
        parametrize.remove_parametrizations(layer, "weight")
    pruned = copy.deepcopy(model)
    pruned.load_state_dict(learnt.state_dict())
    noted(pruned, step)
    if out is not None:
        save_checkpoint(pruned, out)
    return pruned


def zeros(model: nn.Module) -> float:
    """Return the share of the prunable weights that are exactly zero."""
    weights = [layer.weight for layer in prunable(model)]
    total = sum(weight.numel() for weight in weights)
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / max(total, 1)


def prunable(model: nn.Module) -> list[nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear]:
    """Return the layers whose weights are pruned: convolutions and linear layers."""
    return [module for module in model.modules() if isinstance(module, _LAYERS)]


class _Scored(nn.Module):
    """A weight of which only what has the largest scores is seen."""

    def __init__(self, weight: Tensor, amount: float) -> None:
        super().__init__()
        size = weight.detach().abs()
        self.scores = nn.Parameter(size / size.max().clamp_min(1e-12))
        self.zeros = round(amount * weight.numel())

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = _Kept.apply(self.scores.abs(), self.zeros)
        return weight * kept


class _Kept(torch.autograd.Function):
    """1 where a score is among the largest, else 0; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, count: int) -> Tensor:  # noqa: ARG004
        kept = torch.ones_like(scores).flatten()
        kept[scores.flatten().topk(count, largest=False).indices] = 0
        return kept.view_as(scores)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


def _check_amount(amount: float) -> None:
    if not 0 < amount < 1:
        raise ModelError(f"amount={amount}: wanted a share above 0 and below 1")


def noted(model: VideoClassifier, step: dict[str, Any]) -> VideoClassifier:
    """Return the model with one more step in the lineage of its card, in evaluation mode."""
    model.card = replace(model.card, weights_digest="", lineage=(*model.card.lineage, step))
    return model.eval()
