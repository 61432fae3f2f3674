"""What training lowers: an objective finds adversarial clips, and says what the model loses on them.

Every name is a function of settings that returns an :class:`Objective`; ``"trades:beta=3"`` sets them by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustvid.attacks.goal import Goal
from robustvid.attacks.gradient import loss_gradient
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.models import load_model
from robustvid.models.classifier import VideoClassifier
from robustvid.registry import Registry, check_params, split_params

# (model, clips, labels, budget, seeds) -> adversarial clips; the model comes frozen, in evaluation mode
Find = Callable[[nn.Module, Tensor, Tensor, Budget, Tensor], Tensor]
# (model, clips, adversarial clips, labels) -> (mean loss, logits that it was taken of); the model is in training mode
Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Objective(NamedTuple):
    """How one batch is learnt from.

    Attributes:
        loss: what is lowered.
        find: what is done to the clips first; None where they are learnt as they are.
        replays: updates made on every batch. Above 1 the update's own backward also moves the perturbation, by one
            step as long as the radius, to where the next replay begins.
        swap: whether an attack card may take the place of ``find``.
        teacher: the model whose answers are learnt, frozen, in evaluation mode; None where labels alone are.
    """

    loss: Loss
    find: Find | None = None
    replays: int = 1
    swap: bool = False
    teacher: VideoClassifier | None = None


OBJECTIVES = Registry(
    "objective",
    {
        name: f"robustvid.training.objectives:{name.replace('-', '_')}"
        for name in ("natural", "fgsm", "n-fgsm", "pgd", "free", "trades", "mart", "kd", "ard", "rslad")
    },
)


def load_objective(text: str) -> Objective:
    """Return an objective by name and settings, such as ``"pgd:steps=10"``.

    Raises:
        UnknownNameError: no objective has this name.
        CardError: it has no such setting, or the setting means nothing.
    """
    name, given = split_params(text)
    build = OBJECTIVES.load(name)
    check_params(given, list(inspect.signature(build).parameters.values()), name, text)
    for key, value in given.items():
        if isinstance(value, int | float) and value < 0:
            raise CardError(f"{text}: {key} = {value!r}; give 0 or more")
    objective: Objective = build(**given)
    return objective


def natural() -> Objective:
    """Learn the clips as they are: the mean cross-entropy, no attack."""
    return Objective(_on_clean)


def fgsm(noise: float = 1.0, step_size: float = 1.25, project: bool = True) -> Objective:  # noqa: FBT001, FBT002
    """Learn clips after a random start and one step: η = noise · U(S), δ = P_S(η + α·s(∇L(f(x + η), y))).

    Cheap, 2 forwards and backwards a clip, and prone to catastrophic overfitting at large radii: the model learns to
    fail against longer attacks alone.

    Args:
        noise: size of the random start in units of the budget's radius; 0 starts at the clip.
        step_size: α in the same units.
        project: bring the perturbation back into the budget.

    References:
        Wong, Rice & Kolter, "Fast is better than free: Revisiting adversarial training", arXiv:2001.03994.
    """

    def find(model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor) -> Tensor:
        start = clips if noise == 0 else (clips + noise * budget.start(clips, seeds)).clamp(0, 1)
        grad, _ = loss_gradient(model, start, Goal(labels))
        delta = start - clips + step_size * budget.steepest(grad)
        # Noise and step choose their frames apart, so that without projection twice as many would change.
        return (clips + (budget.project(delta) if project or budget.frames is not None else delta)).clamp(0, 1)

    return Objective(_on_adversarial, find)


def n_fgsm(noise: float = 2.0, step_size: float = 1.0) -> Objective:
    """Learn clips after twice as much noise as the budget allows and one step, without projection.

    η = noise · U(S), δ = η + α·s(∇L(f(x + η), y)). As cheap as FGSM, and it holds where FGSM overfits.

    Args:
        noise: size of the noise in units of the radius.
        step_size: α in the same units.

    References:
        de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training", arXiv:2202.01181.
    """
    return fgsm(noise, step_size, project=False)


def pgd(steps: int = 7, step_size: float = 0.25) -> Objective:
    """Learn the worst clips that projected steepest ascent finds: min_θ E max_{δ ∈ S} L(f_θ(x + δ), y).

    The last iterate is learnt, of steps that all clips go: steps + 1 forwards and backwards a clip.

    Args:
        steps: K.
        step_size: α in units of the radius.

    References:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv:1706.06083.
    """
    return Objective(_on_adversarial, _ascent(steps, step_size), swap=True)


def free(replays: int = 4) -> Objective:
    """Use every backward twice: for the weights, and for the perturbation of the next replay of the same batch.

    δ ← P_S(δ + ε·s(∇_x L)) after each of m updates; a new batch starts at a random δ. The price of m natural epochs
    for each epoch, so that epochs are divided by m where the price should be that of natural training.

    Args:
        replays: m.

    References:
        Shafahi et al., "Adversarial Training for Free!", arXiv:1904.12843.
    """
    if replays < 2:
        raise CardError(f"replays={replays}: give at least 2, each after the first uses what the one before found")
    return Objective(_on_adversarial, _random_start, replays)


def trades(beta: float = 6.0, steps: int = 10, step_size: float = 0.25) -> Objective:
    """Learn the clips, and the same answer around them: L(f(x), y) + β·KL(f(x) ‖ f(x')), x' the largest KL found.

    KL is summed over classes and averaged over clips, so that β means the same for 10 classes and for 400. With β = 0
    no x' is made and the update is that of ``natural``, bit for bit.

    Args:
        beta: β.
        steps: of the inner ascent.
        step_size: α in units of the radius.

    References:
        Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", arXiv:1901.08573.
    """
    if beta == 0:
        return natural()

    def find(model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor) -> Tensor:  # noqa: ARG001
        with torch.no_grad():
            away = _Divergence(model(clips).log_softmax(1))
        start = (clips + _NEAR * budget.start(clips, seeds)).clamp(0, 1)  # at the clip itself KL has no slope
        return _climb(model, clips, budget, start, away, steps, step_size)

    def loss(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        clean, logits = model(clips), model(adversarial)
        return F.cross_entropy(clean, labels) + beta * _kl(clean, logits).mean(), logits

    return Objective(loss, find, swap=True)


def mart(lam: float = 5.0, steps: int = 10, step_size: float = 0.25) -> Objective:
    """Learn adversarial clips, and weigh agreement by how wrong the clean answer is.

    BCE(f(x'), y) + λ·KL(f(x) ‖ f(x'))·(1 - p_y(x)), with BCE = -log p_y(x') - log(1.0001 - max_{k≠y} p_k(x')).

    Args:
        lam: λ.
        steps: of the inner ascent on the cross-entropy.
        step_size: α in units of the radius.

    References:
        Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR 2020.
    """

    def loss(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        clean, logits = model(clips), model(adversarial)
        shares = logits.softmax(1)
        rival = shares.scatter(1, labels[:, None], 0.0).amax(1)
        boosted = F.cross_entropy(logits, labels, reduction="none") - (1.0001 - rival).log()
        doubt = 1 - clean.softmax(1).gather(1, labels[:, None]).squeeze(1)
        return (boosted + lam * _kl(clean, logits) * doubt).mean(), logits

    return Objective(loss, _ascent(steps, step_size), swap=True)


def kd(teacher: str = "", temperature: float = 4.0, alpha: float = 0.9) -> Objective:
    """Learn a teacher's answers on the clips as they are: α·t²·KL(T^t(x) ‖ S^t(x)) + (1 - α)·L(S(x), y).

    No attack, so that a student keeps little of a robust teacher's robustness.

    Args:
        teacher: name or folder of the model to learn from, a model of the same classes and clips.
        temperature: t, which divides the logits of both.
        alpha: α.

    References:
        Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
    """
    wise = _teacher(teacher, "kd", temperature, alpha)

    def loss(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        logits = model(clips)
        return _softened(_answers(wise, clips), logits, temperature, alpha, logits, labels), logits

    return Objective(loss, teacher=wise)


def ard(
    teacher: str = "", temperature: float = 30.0, alpha: float = 1.0, steps: int = 10, step_size: float = 0.25
) -> Objective:
    """Learn the teacher's answers to clips at adversarial ones: α·t²·KL(T^t(x) ‖ S^t(x')) + (1 - α)·L(S(x), y).

    x' raises the cross-entropy of the student.

    Args:
        teacher: as for ``kd``; a robust one.
        temperature: t; 30 is the paper's.
        alpha: α; 1 is the paper's.
        steps: of the inner ascent.
        step_size: of it, in units of the radius.

    References:
        Goldblum et al., "Adversarially Robust Distillation", arXiv:1905.09747.
    """
    wise = _teacher(teacher, "ard", temperature, alpha)

    def loss(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(adversarial)
        clean = model(clips) if alpha < 1 else logits  # then nothing is made of it
        return _softened(_answers(wise, clips), logits, temperature, alpha, clean, labels), logits

    return Objective(loss, _ascent(steps, step_size), swap=True, teacher=wise)


def rslad(teacher: str = "", share: float = 5 / 6, steps: int = 10, step_size: float = 0.25) -> Objective:
    """Learn a robust teacher's soft answers alone: s·KL(T(x) ‖ S(x')) + (1 - s)·KL(T(x) ‖ S(x)), x' the largest KL.

    KL is summed over classes and averaged over clips.

    Args:
        teacher: as for ``ard``.
        share: s; 5/6 is the paper's.
        steps: of the inner ascent of KL(T(x) ‖ S(x')).
        step_size: of it, in units of the radius.

    References:
        Zi et al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", ICCV 2021.
    """
    wise = _teacher(teacher, "rslad", 1.0, share)

    def find(model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor) -> Tensor:
        start = _random_start(model, clips, labels, budget, seeds)
        return _climb(model, clips, budget, start, _Divergence(_answers(wise, clips)), steps, step_size)

    def loss(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        soft, logits = _answers(wise, clips), model(adversarial)
        return (share * _kl(soft, logits) + (1 - share) * _kl(soft, model(clips))).mean(), logits

    return Objective(loss, find, swap=True, teacher=wise)


def _teacher(name: str, objective: str, temperature: float, share: float) -> VideoClassifier:
    if not name:
        raise CardError(f"{objective} learns from another model: {objective}:teacher=NAME, a zoo name or a folder")
    if not (temperature > 0 and share <= 1):
        raise CardError(f"{objective}: wanted a temperature above 0 and shares of at most 1")
    return load_model(name).requires_grad_(False)


def _answers(teacher: nn.Module, clips: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = teacher(clips)
    return logits


def _softened(  # noqa: PLR0917
    soft: Tensor, logits: Tensor, temperature: float, alpha: float, clean: Tensor, labels: Tensor
) -> Tensor:
    """Return α·t²·KL between answers divided by t, and the rest of the cross-entropy of the clean ones."""
    learnt = temperature**2 * _kl(soft / temperature, logits / temperature).mean()
    return alpha * learnt + (1 - alpha) * F.cross_entropy(clean, labels) if alpha < 1 else learnt


_NEAR = 0.03  # of the radius: 0.001 in pixels at 8/255, as the paper starts


class _Divergence(NamedTuple):
    """KL(target ‖ f(x)), which an attack climbs."""

    target: Tensor

    def value(self, logits: Tensor) -> Tensor:
        return _kl(self.target, logits)

    def select(self, index: Tensor) -> _Divergence:
        return _Divergence(self.target[index])


def _kl(target: Tensor, logits: Tensor) -> Tensor:
    """Return KL(softmax(target) ‖ softmax(logits)) of each clip, ``(B,)``."""
    pair = logits.log_softmax(1), target.log_softmax(1)
    return F.kl_div(*pair, reduction="none", log_target=True).sum(1)


def _on_clean(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    logits = model(clips)
    return F.cross_entropy(logits, labels), logits


def _on_adversarial(model: nn.Module, clips: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    logits = model(adversarial)
    return F.cross_entropy(logits, labels), logits


def _random_start(model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor) -> Tensor:  # noqa: ARG001
    return (clips + budget.start(clips, seeds)).clamp(0, 1)


def _ascent(steps: int, step_size: float) -> Find:
    if steps < 1:
        raise CardError(f"steps={steps}: give at least 1")

    def find(model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor) -> Tensor:
        start = _random_start(model, clips, labels, budget, seeds)
        return _climb(model, clips, budget, start, Goal(labels), steps, step_size)

    return find


def _climb(  # noqa: PLR0917  the inputs of an attack, then how to climb
    model: nn.Module,
    clips: Tensor,
    budget: Budget,
    iterate: Tensor,
    goal: Goal | _Divergence,
    steps: int,
    step_size: float,
) -> Tensor:
    """Return the last iterate. Training needs the worst clip, not the first wrong one, so that none is left alone."""
    for _ in range(steps):
        grad, _ = loss_gradient(model, iterate, goal)
        iterate = follow(clips, iterate, grad, budget, step_size)
    return iterate


def follow(clips: Tensor, iterate: Tensor, grad: Tensor, budget: Budget, step_size: float) -> Tensor:
    """Return ``iterate`` after one projected step along ``grad``, in [0, 1]."""
    delta = iterate - clips + step_size * budget.steepest(grad)
    return (clips + budget.project(delta)).clamp(0, 1)
