"""The judgements robustvid passes on attacks, models and datasets, for people who bring their own.

Each function raises ``AssertionError`` with what was wanted and what came, and returns nothing when all is well:

    from robustvid.testing import check_attack

    def test_my_attack():
        check_attack(my_attack)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from robustvid.budget import Budget
from robustvid.contracts import AttackFunction, ClipSpec, ModelCard, VideoDataset, check_logits, frozen
from robustvid.errors import BudgetError
from robustvid.losses import margin

BUDGETS: tuple[Budget, ...] = (
    Budget("linf", "8/255"),
    Budget("linf", "8/255", frames=2),
    Budget("l2", frame=0.5),
    Budget("l2", clip=1.0),
    Budget("l2", frame=0.5, clip=1.0),
    Budget("l2", frame=0.5, frames=2),
)
_SMALL = ClipSpec(frames=4, stride=1, size=(32, 32))


class TinyVideoNet(nn.Module):
    """A small 3D CNN with BatchNorm for checks: any clip size, any number of classes, seconds on a CPU.

    Args:
        classes: number of logits.
        seed: of the weights.
    """

    def __init__(self, classes: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1),
                nn.BatchNorm3d(8),
                nn.ReLU(),
                nn.Conv3d(8, 16, 3, stride=(1, 2, 2), padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool3d((1, 2, 2)),
                nn.Flatten(),
            )
            self.head = nn.Linear(64, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits ``(B, K)`` for clips ``(B, 3, T, H, W)``."""
        logits: Tensor = self.head(self.features(clips - 0.5)) * 20
        return logits


class _Exact(nn.Module):
    """A model whose rounding no float32 attack can see: a clip's bits do not depend on its company.

    Kernels sum in another order for another batch size, and on some CPUs for another place in the batch. In float32 the
    last bit flips the sign of a small gradient, and an attack that keeps the contract would seem to break it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.model(clips.double()).to(clips.dtype)
        return logits


def check_attack(
    attack: AttackFunction,
    budgets: Iterable[Budget] = BUDGETS,
    classes: Sequence[int] = (2, 3, 10),
    shapes: Sequence[tuple[int, int, int]] = ((8, 16, 16), (1, 16, 16), (4, 12, 20)),
) -> None:
    """Hold an attack to the contract over budgets, class counts and clip shapes.

    It must return clips of the same shape and type, in [0, 1] and inside the budget; change neither its inputs nor
    the model; give the same result twice and, for every clip, in any company: broken or not alike, and the margin to
    1e-5. A budget that the attack refuses with ``BudgetError`` is passed over.

    Args:
        attack: ``(model, clips, labels, budget, seeds) -> clips``.
        budgets: what to attack within.
        classes: numbers of logits to try.
        shapes: ``(T, H, W)`` of the clips to try.

    Raises:
        AssertionError: the contract is broken; says how, and where.
        AssertionError: every budget was refused.
    """
    accepted = 0
    for budget in budgets:
        for count in classes:
            for shape in shapes:
                if budget.frames is not None and int(budget.frames) > shape[0]:
                    continue
                try:
                    _check_one(attack, budget, _Exact(TinyVideoNet(count)), shape)
                except BudgetError:
                    continue
                except AssertionError as error:
                    raise AssertionError(f"{error} ({budget.describe()}, {count} classes, clips {shape})") from None
                accepted += 1
    if not accepted:
        raise AssertionError("the attack refused every budget")


def check_model(model: nn.Module) -> None:
    """Hold a video classifier to the contract.

    It must have a card, return finite logits ``(B, K)`` that are not probabilities, answer alike twice and in any
    company, let the gradient reach every frame of the clip, and leave its statistics alone in evaluation mode.

    Args:
        model: takes float32 clips in [0, 1], cut as ``model.card.clip`` says.

    Raises:
        AssertionError: the contract is broken; says how.
    """
    card = getattr(model, "card", None)
    _want(isinstance(card, ModelCard), f"model.card is {card!r}; a robustvid.ModelCard is wanted")
    assert isinstance(card, ModelCard)
    shape = (card.clip.length, *card.clip.size)
    clips = _clips(4, shape)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with frozen(model):
        with torch.no_grad():
            logits = check_logits(model(clips), clips)
            again, alone = model(clips), torch.cat([model(clip[None]) for clip in clips])
        leaf = clips.clone().requires_grad_()
        (grad,) = torch.autograd.grad(check_logits(model(leaf), leaf).amax(1).sum(), leaf)
        changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])]
    _want(logits.shape[1] == len(card.classes), f"{logits.shape[1]} logits for {len(card.classes)} classes")
    _want(torch.equal(logits, again), "the same clips gave other logits the second time in evaluation mode")
    gap = float((logits - alone).abs().max() / (logits.amax() - logits.amin()).clamp_min(1e-12))
    _want(gap < 1e-3, f"a clip's logits depend on the other clips of the batch (relative change {gap:.2g})")
    probabilities = bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(len(clips)), atol=1e-3)
    _want(
        not probabilities,
        "the outputs are non-negative and sum to 1: these are probabilities, logits are wanted; take the softmax out, "
        "or wrap the network in robustvid.models.adapters.Adapted(network, probabilities=True)",
    )
    _want(bool(torch.isfinite(grad).all()), "the gradient has NaN or infinite values")
    dead = (grad.abs().amax((1, 3, 4)) == 0).any(0).nonzero().flatten().tolist()
    _want(not dead, f"no gradient reaches frames {dead} of {card.clip.length}")
    _want(not changed, f"a forward in evaluation mode changed {changed}")


def check_dataset(data: VideoDataset, clip: ClipSpec = _SMALL, samples: int = 8) -> None:
    """Hold a dataset to the contract on a few of its videos.

    Args:
        data: labelled videos.
        clip: how to cut them.
        samples: how many videos to look at, spread over the dataset.

    Raises:
        AssertionError: the contract is broken; says how, and for which video.
    """
    _want(len(data) > 0, "the dataset is empty")
    _want(len(data.classes) > 1, f"the dataset has {len(data.classes)} classes; at least 2 are wanted")
    places = sorted({round(i * (len(data) - 1) / max(1, samples - 1)) for i in range(samples)})
    seen: dict[str, int] = {}
    for place in places:
        sample = data.sample(place, clip)
        where = f"video {place} ({sample.id!r})"
        wanted = (clip.length, *clip.size, 3)
        _want(sample.frames.dtype == torch.uint8, f"{where}: frames are {sample.frames.dtype}; uint8 is wanted")
        _want(tuple(sample.frames.shape) == wanted, f"{where}: frames are {tuple(sample.frames.shape)}, not {wanted}")
        _want(0 <= sample.label < len(data.classes), f"{where}: label {sample.label} of {len(data.classes)} classes")
        _want(sample.id not in seen, f"{where} has the same id as video {seen.get(sample.id)}")
        seen[sample.id] = place
        again = data.sample(place, clip)
        same = again.id == sample.id and again.label == sample.label and torch.equal(again.frames, sample.frames)
        _want(same, f"{where} was different the second time")


def _check_one(attack: AttackFunction, budget: Budget, model: nn.Module, shape: tuple[int, int, int]) -> None:
    clips = _clips(8, shape)
    seeds = torch.arange(8) + 11
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with frozen(model):
        with torch.no_grad():
            labels = model(clips).argmax(1)
        given = clips.clone(), labels.clone(), seeds.clone()
        result = attack(model, clips, labels, budget, seeds)
        unchanged = all(torch.equal(a, b) for a, b in zip(given, (clips, labels, seeds), strict=True))
        _want(unchanged, "the attack changed its inputs in place")
        _want(result.shape == clips.shape, f"the result is {tuple(result.shape)} for clips {tuple(clips.shape)}")
        _want(result.dtype == clips.dtype, f"the result is {result.dtype} for {clips.dtype}")
        _want(bool(((result >= 0) & (result <= 1)).all()), "the result leaves [0, 1]")
        size = float(budget.size(result - clips).max())
        _want(size <= 1, f"the result has {size:.6g} times the size of the budget")
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
        _want(not changed, f"the attack changed the model: {changed}")
        _want(torch.equal(result, attack(model, clips, labels, budget, seeds)), "the same seeds gave another result")
        one_by_one = zip(clips.split(1), labels.split(1), seeds.split(1), strict=True)
        alone = torch.cat([attack(model, clip, label, budget, seed) for clip, label, seed in one_by_one])
        with torch.no_grad():
            together, apart = model(result), model(alone)
    same = bool(((together.argmax(1) == labels) == (apart.argmax(1) == labels)).all())
    _want(same, "a clip is broken in a batch of 8 and not alone, or the reverse")
    gap = float((margin(together, labels) - margin(apart, labels)).abs().max() / together.abs().amax())
    _want(gap < 1e-5, f"a clip's result depends on the other clips of the batch (margins differ by {gap:.2g})")


def _clips(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Return smooth random clips ``(count, 3, T, H, W)`` away from black and white."""
    noise = torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(5))
    return 0.2 + 0.6 * noise


def _want(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise AssertionError(otherwise)
