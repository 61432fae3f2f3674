"""Auto-PGD: the reference package step for step, the closed form, targets and what makes it itself."""

import pytest
import torch
from linear import BUDGETS, B, H, LinearVideo, T, W, worst_case

import robustvid as rv
from robustvid.attacks import apgd as module
from robustvid.attacks.apgd import apgd, apgd_shrink, apgd_t
from robustvid.attacks.goal import Goal
from robustvid.budget import Budget
from robustvid.errors import CardError
from robustvid.losses import margin
from robustvid.testing import TinyVideoNet, check_attack

SHAPE = (3, 4, 16, 16)


class Recorder(torch.nn.Module):
    """Notes the logits of every call; folds a 4-D view back to clips."""

    def __init__(self, model):
        super().__init__()
        self.model, self.logits = model, []

    def forward(self, clips):
        logits = self.model(clips.reshape(len(clips), *SHAPE))
        self.logits.append(logits.detach())
        return logits


def best_losses(recorder, value):
    return torch.stack([value(logits) for logits in recorder.logits]).cummax(0).values


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr", "dlr-targeted"])
def test_the_reference_package_step_for_step(norm, loss, monkeypatch):
    """From the same start, the best loss after each of 60 steps is the same to 1e-4, through many checkpoints."""
    autopgd = pytest.importorskip("pyautoattack.autopgd_base", reason="needs pyautoattack, in the extra dev")
    model = TinyVideoNet(5, seed=3).eval().requires_grad_(False)
    clips = 0.2 + 0.6 * torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = model(clips).argmax(1)
    ranking = model(clips).argsort(1, descending=True)
    eps = {"linf": 0.1 / 255, "l2": 0.02}[norm]  # so small that no clip falls: a fallen one would leave our batch
    budget = Budget(norm, **{"frame" if norm == "linf" else "clip": eps})
    seeds, targets = torch.arange(6), ranking[:, 1] if loss == "dlr-targeted" else None
    goal = Goal(labels, loss.removesuffix("-targeted"), targets)
    start = (clips + budget.start(clips, seeds)).clamp(0, 1)

    kind = {"linf": "Linf", "l2": "L2"}[norm]
    theirs = Recorder(model)
    reference = {
        "cross-entropy": lambda: autopgd.APGDAttack(theirs, 60, kind, eps=eps, loss="ce"),
        "dlr": lambda: autopgd.APGDAttack(theirs, 60, kind, eps=eps, loss="dlr"),
        "dlr-targeted": lambda: autopgd.APGDAttack_targeted(theirs, 60, kind, eps=eps),
    }[loss]()
    flat, begin = clips.flatten(1, 2), start.flatten(1, 2)
    reference.init_hyperparam(flat)
    reference.loss, reference.y_target = {"cross-entropy": "ce"}.get(loss, loss), targets
    reference.attack_single_run(flat, labels, x_init=begin)

    ours = Recorder(model)
    monkeypatch.setattr(module, "begin", lambda problem: start)
    module._climb(ours, module.Problem(clips, goal, budget, seeds, None), module._Climb(60, 0.75, module.expected(1)))
    assert len(ours.logits) == len(theirs.logits) == 61
    assert bool((margin(torch.stack(ours.logits).flatten(0, 1), labels.repeat(61)) < 0).all())
    mine, wanted = best_losses(ours, goal.value), best_losses(theirs, goal.value)
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-4)
    assert float((wanted[-1] - wanted[0]).min()) > 1e-3  # there was something to climb


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("attack", [apgd, apgd_t, apgd_shrink])
def test_linear_classifier_reaches_the_closed_form(name, attack):
    model, budget = LinearVideo(), BUDGETS[name]
    clips = torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64)
    result = attack(model, clips, torch.zeros(B, dtype=torch.long), budget, torch.arange(B), steps=40)
    gain = model(result)[:, 1] - model(clips)[:, 1]
    torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=1e-2, atol=0)
    assert bool((budget.size(result - clips) <= 1).all())


@pytest.mark.parametrize(
    "card", ["apgd-ce:steps=4", "apgd-dlr:steps=4", "apgd-t:steps=3,targets=3", "apgd-shrink:steps=3"]
)
def test_contract(card):
    check_attack(rv.load_attack(card))


def test_checkpoints_are_those_of_the_paper():
    assert module._windows(100)[:6] == [22, 19, 16, 13, 10, 7]
    assert sum(module._windows(100)[:-1]) <= 100 < sum(module._windows(100))
    assert module._windows(1) == [1, 1]


def count_calls(model):
    calls = []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return calls


def test_costs_are_what_the_docstring_says():
    model = TinyVideoNet(4).eval()
    clips = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels, seeds, tiny = model(clips).argmax(1), torch.arange(3), Budget("linf", 1e-7)
    calls = count_calls(model)
    apgd(model, clips, labels, tiny, seeds, steps=7, restarts=2)
    assert calls == [3] * 2 * 8
    calls.clear()
    apgd_t(model, clips, labels, tiny, seeds, steps=5, targets=9)
    assert calls == [3] * (1 + 3 * 6)  # four classes have three wrong ones
    calls.clear()
    apgd_shrink(model, clips, labels, tiny, seeds, steps=5, balls=3, restarts=2)
    assert calls == [3] * 2 * 3 * 6


def test_broken_clips_are_left_alone():
    model = TinyVideoNet(4).eval()
    clips = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels = model(clips).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    calls = count_calls(model)
    apgd(model, clips, labels, Budget("linf", 1e-7), torch.arange(4), steps=3)
    assert calls == [4, 1, 1, 1]
    calls.clear()
    result = apgd_t(model, clips, labels, Budget("linf", 1e-7), torch.arange(4), steps=3, targets=1)
    assert calls == [4, 1, 1, 1, 1]
    assert torch.equal(result[:3], clips[:3])


def test_each_ball_begins_where_the_larger_one_left_off():
    model, seen = TinyVideoNet(4).eval(), []
    clips = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels, budget, steps = model(clips).argmax(1), Budget("linf", 1e-4), 5
    model.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0].detach(), margin(logits, labels))))
    apgd_shrink(model, clips, labels, budget, torch.arange(3), steps=steps, balls=3)
    sizes = [float(budget.size(iterate - clips).max()) for iterate, _ in seen]
    for ball, part in zip((3, 2, 1), (sizes[start : start + steps + 1] for start in range(0, 18, 6)), strict=True):
        assert max(part) == pytest.approx(ball, rel=1e-2)
    gaps = torch.stack([gap for _, gap in seen[:6]])
    best = torch.stack([seen[int(gaps[:, clip].argmax())][0][clip] for clip in range(3)])
    begun = (clips + Budget("linf", 2e-4).project(best - clips)).clamp(0, 1)
    torch.testing.assert_close(seen[6][0], begun, rtol=0, atol=1e-7)


def test_a_clip_that_a_larger_ball_breaks_is_not_broken_yet():
    """A linear classifier that falls at 2.5 radii."""
    linear, budget = LinearVideo(), Budget("linf", 1e-3)
    gain = worst_case(budget, linear.difference)[0]

    def model(clips):
        return torch.stack([torch.full((len(clips),), 2.5 * gain), linear(clips)[:, 1]], 1)

    clips, labels = torch.full((B, 3, T, H, W), 0.5, dtype=torch.float64), torch.zeros(B, dtype=torch.long)
    result = apgd_shrink(model, clips, labels, budget, torch.arange(B), steps=10)
    assert bool((budget.size(result - clips) <= 1).all())
    assert bool((model(result).argmax(1) == 0).all())
    assert bool((model(clips + 3 * (result - clips)).argmax(1) == 1).all())


def test_a_surrogate_is_climbed_to_the_end():
    model = TinyVideoNet(4).eval()
    model.surrogate = True
    clips = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels, calls = model(clips).argmax(1), count_calls(model)
    result = apgd(model, clips, labels, Budget("linf", "8/255"), torch.arange(4), steps=6)
    assert calls == [4] * 7
    model.surrogate = False
    soon = apgd(model, clips, labels, Budget("linf", "8/255"), torch.arange(4), steps=6)
    assert bool((margin(model(result), labels) >= margin(model(soon), labels)).all())


def test_targeted_mode_reaches_the_class_it_is_given():
    model = TinyVideoNet(4).eval()
    clips = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels, budget = model(clips).argmax(1), Budget("linf", 0.5)
    for target, wanted in [(2, torch.full_like(labels, 2)), ("next", (labels + 1) % 4)]:
        result = apgd(model, clips, labels, budget, torch.arange(6), steps=20, target=target)
        assert int((model(result).argmax(1) == wanted).sum()) >= 5
    with pytest.raises(CardError, match="from 0 to 3"):
        apgd(model, clips, labels, budget, torch.arange(6), target=4)


def test_averaging_over_a_random_model_helps():
    """A model that adds noise to its clips: gradients averaged over 8 samples climb higher than those of one."""

    class Noisy(TinyVideoNet):
        def forward(self, clips):
            return super().forward(clips + 0.5 * torch.randn_like(clips))

    model = Noisy(4).eval()
    clips = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.no_grad():
        labels = sum(model(clips) for _ in range(50)).argmax(1)
        model.surrogate = True  # climb to the end whatever one draw says
        reached = []
        for eot in (1, 8):
            result = apgd(model, clips, labels, Budget("linf", "6/255"), torch.arange(8), steps=10, eot=eot)
            mean = sum(model(result) for _ in range(100)) / 100
            reached.append(float(margin(mean, labels).mean()))
    assert reached[1] > reached[0]


@pytest.mark.parametrize("settings", [{"steps": 0}, {"restarts": 0}])
def test_settings_that_attack_nothing_are_refused(settings):
    model, clips = TinyVideoNet(4).eval(), torch.rand(1, *SHAPE)
    for attack in (apgd, apgd_t):
        with pytest.raises(CardError, match="give at least 1"):
            attack(model, clips, torch.tensor([0]), Budget("linf", "8/255"), torch.arange(1), **settings)
