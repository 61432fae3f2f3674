"""Objectives: what is found stays in the budget, what is lowered is the paper's loss, and zeros mean nothing."""

import pytest
import torch
import torch.nn.functional as F
from toys import Brightness, small_model

from robustvid.budget import Budget
from robustvid.contracts import frozen
from robustvid.errors import CardError, UnknownNameError
from robustvid.losses import cross_entropy
from robustvid.models import load_model
from robustvid.models.classifier import weights_digest
from robustvid.training.loop import train
from robustvid.training.objectives import OBJECTIVES, load_objective
from robustvid.training.plan import TrainingPlan
from robustvid.training.trainee import Trainee

BUDGETS = [Budget("linf", "8/255"), Budget("l2", clip=1.0), Budget("l2", frame=0.5), Budget("linf", "8/255", frames=2)]
SEEDS = torch.arange(6)
TAUGHT = {"kd", "ard", "rslad"}  # need a teacher
PLAN = TrainingPlan(epochs=1, batch_size=8, holdout=0, threats=("linf frame 8/255",))


@pytest.fixture
def problem():
    clips = torch.rand(6, 3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    return small_model(), clips, torch.tensor([0, 1] * 3)


def found(objective, model, clips, labels, budget):
    trainee = Trainee(model, "fp32")
    with frozen(trainee):
        return load_objective(objective).find(trainee, clips, labels, budget, SEEDS)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda b: b.describe())
@pytest.mark.parametrize("objective", ["fgsm", "fgsm:noise=0", "pgd", "free", "trades", "mart"])
def test_what_is_found_is_a_clip_inside_the_budget(problem, objective, budget):
    model, clips, labels = problem
    result = found(objective, model, clips, labels, budget)
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1
    assert float(budget.size(result - clips).max()) <= 1


def test_n_fgsm_leaves_the_ball_and_no_more_than_noise_and_step(problem):
    model, clips, labels = problem
    delta = found("n-fgsm", model, clips, labels, BUDGETS[0]) - clips
    assert 1 < float(BUDGETS[0].size(delta).max()) <= 3
    frames = found("n-fgsm", model, clips, labels, BUDGETS[3]) - clips
    assert float(BUDGETS[3].size(frames).max()) <= 1


@pytest.mark.parametrize("objective", ["fgsm", "pgd", "mart"])
def test_what_is_found_is_worse_than_the_clip(problem, objective):
    model, clips, labels = problem
    worse = found(objective, model, clips, labels, BUDGETS[0])
    with torch.no_grad():
        before, after = (cross_entropy(model.eval()(x), labels).mean() for x in (clips, worse))
    assert float(after) > float(before)


def test_attacks_go_all_steps_also_where_the_clip_has_fallen(problem):
    model, clips, labels = problem
    calls = []
    trainee = Trainee(model, "fp32")
    trainee.register_forward_hook(lambda *_: calls.append(1))
    wrong = 1 - labels
    with frozen(trainee):
        load_objective("pgd:steps=5").find(trainee, clips, wrong, BUDGETS[0], SEEDS)
    assert len(calls) == 5


def test_trades_is_cross_entropy_and_beta_times_the_divergence(problem):
    model, clips, labels = problem
    model.eval()
    other = (clips + 0.05).clamp(0, 1)
    loss, logits = load_objective("trades:beta=3").loss(model, clips, other, labels)
    clean, moved = model(clips).softmax(1), model(other).softmax(1)
    divergence = (clean * (clean / moved).log()).sum(1).mean()
    torch.testing.assert_close(loss, F.cross_entropy(model(clips), labels) + 3 * divergence)
    torch.testing.assert_close(logits, model(other))
    assert float(divergence.detach()) > 0


def test_the_gradient_of_trades_flows_through_both_answers(problem):
    model, clips, labels = problem
    model.eval()
    clean, other = clips.clone().requires_grad_(), (clips + 0.05).clamp(0, 1).requires_grad_()
    load_objective("trades").loss(model, clean, other, labels)[0].backward()
    assert float(clean.grad.abs().max()) > 0
    assert float(other.grad.abs().max()) > 0


def test_mart_weighs_the_divergence_by_doubt(problem):
    model, clips, labels = problem
    model.eval()
    other = (clips + 0.05).clamp(0, 1)
    loss, _ = load_objective("mart:lam=2").loss(model, clips, other, labels)
    clean, moved = model(clips).softmax(1), model(other).softmax(1)
    right, rival = (moved[torch.arange(6), y] for y in (labels, 1 - labels))
    doubt = 1 - clean[torch.arange(6), labels]
    wanted = -right.log() - (1.0001 - rival).log() + 2 * (clean * (clean / moved).log()).sum(1) * doubt
    torch.testing.assert_close(loss, wanted.mean())


def test_trades_with_beta_0_is_natural_training_bit_for_bit():
    natural, trades = (
        train(small_model(), Brightness(), TrainingPlan(epochs=2, batch_size=8, holdout=0, objective=o, threats=t))
        for o, t in (("natural", ()), ("trades:beta=0", ("linf frame 8/255",)))
    )
    assert weights_digest(natural) == weights_digest(trades)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES.names() if name not in TAUGHT | {"natural"}])
def test_an_attack_leaves_batchnorm_alone(problem, objective):
    model, clips, labels = problem
    model.train()
    digest = weights_digest(model)
    found(objective, model, clips, labels, BUDGETS[0])
    assert weights_digest(model) == digest
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_free_survives_a_last_short_batch_and_counts_its_replays():
    steps = []
    plan = TrainingPlan(epochs=2, batch_size=8, holdout=0, objective="free:replays=3", threats=("linf frame 8/255",))
    train(small_model(), Brightness(count=35), plan, progress=lambda p: steps.append((p.step, p.steps)))
    assert steps[-1] == (2 * 5 * 3, 2 * 5 * 3)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("pdg", UnknownNameError, "Did you mean 'pgd'"),
        ("pgd:step=3", CardError, "Did you mean 'steps'"),
        ("pgd:steps=0", CardError, "at least 1"),
        ("pgd:steps=2.5", CardError, "pgd wants an int"),
        ("free:replays=1", CardError, "at least 2"),
        ("trades:beta=-1", CardError, "give 0 or more"),
        ("trades:beta=inf", CardError, "not finite"),
        ("natural:steps=3", CardError, "natural takes: no parameters"),
    ],
)
def test_objectives_that_mean_nothing_are_refused(text, error, words):
    with pytest.raises(error, match=words):
        load_objective(text)


@pytest.mark.parametrize("objective", sorted(TAUGHT))
def test_a_student_needs_a_teacher(objective):
    with pytest.raises(CardError, match=f"{objective}:teacher=NAME"):
        load_objective(objective)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn():
    teacher = load_model("conv3d")
    clips = torch.rand(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    for objective in ("kd:teacher=conv3d,alpha=1.0", "ard:teacher=conv3d", "rslad:teacher=conv3d"):
        loss, _ = load_objective(objective).loss(teacher, clips, clips, torch.tensor([0, 1]))
        assert abs(float(loss.detach())) < 1e-4
