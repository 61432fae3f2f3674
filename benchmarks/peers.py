"""Other libraries' attacks behind one signature, for measurements side by side.

A round is ``(model, clips, labels, eps, seed) -> clips``; a contestant is a library with the rounds that a careful user
of it would run one after the other on what still stands. Clips go in as ``(B, C, T, H, W)``; attacks that want images
get them as ``(B, C·T, H, W)``. Of the reference AutoAttack, Square refuses clips and FAB costs more than all the rest.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Round = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]


class Folded(nn.Module):
    """A video model that takes ``(B, C·T, H, W)``."""

    def __init__(self, model: nn.Module, clips: Tensor) -> None:
        super().__init__()
        self.model, self.shape = model, clips.shape[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K)``."""
        logits: Tensor = self.model(images.reshape(len(images), *self.shape))
        return logits


def contestants(norm: str, steps: int, targets: int) -> Mapping[str, list[Round]]:
    """Return each library's rounds for ``"linf"`` (per frame) or ``"l2"`` (per clip)."""
    return {
        "AutoAttack (reference)": [_reference("ce", norm, steps), _reference("t", norm, steps, targets)],
        "torchattacks": [_torchattacks_pgd(norm, steps), _torchattacks_apgd(norm, steps, "ce")],
        "ART": [_art_pgd(norm, steps), _art_apgd(norm, steps)],
        "foolbox": [_foolbox(norm, steps)],
        "adv-lib": [_adv_lib_apgd(norm, steps), _adv_lib_apgd_t(norm, steps, targets), _adv_lib_fmn(norm, steps)],
    }


def _seeded(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the libraries draw from the global state


def _reference(kind: str, norm: str, steps: int, targets: int = 1) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        _seeded(seed)
        flat, name = clips.flatten(1, 2), {"linf": "Linf", "l2": "L2"}[norm]
        settings: dict[str, Any] = {"n_iter": steps, "norm": name, "eps": eps, "seed": seed}
        if kind == "ce":
            return APGDAttack(Folded(model, clips), loss="ce", **settings).perturb(flat, labels).reshape(clips.shape)
        attack = APGDAttack_targeted(Folded(model, clips), n_target_classes=targets, **settings)
        return attack.perturb(flat, labels).reshape(clips.shape)

    return attack


def _torchattacks_pgd(norm: str, steps: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        import torchattacks

        _seeded(seed)
        if norm == "linf":
            return torchattacks.PGD(model, eps=eps, alpha=eps / 5, steps=steps)(clips, labels)
        attack = torchattacks.PGDL2(Folded(model, clips), eps=eps, alpha=eps / 5, steps=steps)
        return attack(clips.flatten(1, 2), labels).reshape(clips.shape)

    return attack


def _torchattacks_apgd(norm: str, steps: int, loss: str) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        import torchattacks

        _seeded(seed)
        name = {"linf": "Linf", "l2": "L2"}[norm]
        attack = torchattacks.APGD(Folded(model, clips), norm=name, eps=eps, steps=steps, loss=loss, seed=seed)
        return attack(clips.flatten(1, 2), labels).reshape(clips.shape)

    return attack


def art_estimator(model: nn.Module, clips: Tensor, labels: Tensor) -> tuple[Any, Any]:
    """Return ART's view of a model, and the labels as it wants them."""
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(clips[:1]).shape[1]
    estimator = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        input_shape=tuple(clips.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if clips.device.type == "cpu" else "gpu",
    )
    return estimator, np.eye(classes, dtype=np.float32)[labels.cpu().numpy()]


def _art_pgd(norm: str, steps: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch

        _seeded(seed)
        estimator, targets = art_estimator(model, clips, labels)
        order = np.inf if norm == "linf" else 2
        attack = ProjectedGradientDescentPyTorch(
            estimator, norm=order, eps=eps, eps_step=eps / 5, max_iter=steps, num_random_init=1, batch_size=64,
            verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(clips.cpu().numpy(), y=targets)).to(clips)

    return attack


def _art_apgd(norm: str, steps: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        from art.attacks.evasion import AutoProjectedGradientDescent

        _seeded(seed)
        estimator, targets = art_estimator(model, clips, labels)
        order = np.inf if norm == "linf" else 2
        attack = AutoProjectedGradientDescent(
            estimator, norm=order, eps=eps, eps_step=2 * eps, max_iter=steps, nb_random_init=1, batch_size=64,
            loss_type="cross_entropy", verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(clips.cpu().numpy(), y=targets)).to(clips)

    return attack


def _foolbox(norm: str, steps: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        import foolbox

        _seeded(seed)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=clips.device)
        kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
        _, clipped, _ = kind(rel_stepsize=0.2, steps=steps)(wrapped, clips, labels, epsilons=eps)
        return torch.as_tensor(clipped)

    return attack


def adv_lib_attacks() -> Any:
    """Return the module of adv-lib's attacks."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # plots that no attack needs
    import adv_lib.attacks

    return adv_lib.attacks


def _adv_lib_apgd(norm: str, steps: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        _seeded(seed)
        return adv_lib_attacks().apgd(
            model, clips, labels, eps=eps, norm=float("inf") if norm == "linf" else 2, n_iter=steps, loss_function="ce"
        )

    return attack


def _adv_lib_apgd_t(norm: str, steps: int, targets: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
        _seeded(seed)
        order = float("inf") if norm == "linf" else 2
        return adv_lib_attacks().apgd_targeted(
            model, clips, labels, eps=eps, norm=order, n_iter=steps, num_targets=targets, loss_function="dlr"
        )

    return attack


def _adv_lib_fmn(norm: str, steps: int) -> Round:
    def attack(model: nn.Module, clips: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:  # noqa: ARG001
        _seeded(seed)
        return adv_lib_attacks().fmn(model, clips, labels, norm=float("inf") if norm == "linf" else 2, steps=2 * steps)

    return attack
