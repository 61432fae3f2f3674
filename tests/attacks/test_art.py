"""The Adversarial Robustness Toolbox by name: all of it is listed, all that can work does, and nothing reaches out."""

import importlib
import inspect
import pkgutil
import sys

import numpy as np
import pytest
import torch
from linear import LinearVideo, worst_case
from second_opinions import ODD_BUDGETS, assert_keeps_the_contract, problem, small

import robustvid as rv
from robustvid.attacks.art import LIBRARY, _classifier
from robustvid.attacks.layouts import Layout, Window
from robustvid.attacks.peers import Shown
from robustvid.attacks.pgd import pgd
from robustvid.budget import Budget
from robustvid.errors import AttackError, CardError, MissingPackageError, UnknownNameError
from robustvid.testing import TinyVideoNet, check_attack

# What numba alone would bring to light.
HIDDEN = {"BrendelBethgeAttack"}


def test_every_evasion_attack_of_the_library_is_usable_or_refused():
    from art.attacks import EvasionAttack, evasion

    names = [found.name for found in pkgutil.walk_packages(evasion.__path__, evasion.__name__ + ".")]
    modules = [evasion, *(importlib.import_module(name) for name in names if not name.endswith("brendel_bethge"))]
    things = [thing for module in modules for thing in vars(module).values() if inspect.isclass(thing)]
    there = {thing.__name__ for thing in things if issubclass(thing, EvasionAttack) and thing is not EvasionAttack}
    assert there | HIDDEN == {*LIBRARY.usable, *LIBRARY.refused}
    assert not {*LIBRARY.usable} & {*LIBRARY.refused}
    assert set(LIBRARY.usable) <= set(vars(evasion))


@pytest.mark.parametrize("name", [name for name in LIBRARY.usable if name != "PixelAttack"])
def test_it_runs_and_touches_nothing(name):
    assert assert_keeps_the_contract(LIBRARY, name)


def test_pixel_attack_runs():
    """Its populations have 400 members whatever is asked, so one clip and one generation are enough here."""
    model, clips, labels, seeds = problem((1, 8, 8), count=1)
    budget = Budget("l2", clip=1.0)
    found = small(LIBRARY, "PixelAttack", max_iter=1)(model, clips, labels, budget, seeds)
    assert float(budget.size(found - clips).max()) <= 1


@pytest.mark.parametrize("name", ["ProjectedGradientDescent", "FrameSaliencyAttack", "SquareAttack", "DeepFool"])
def test_it_serves_every_kind_of_budget_and_frames_that_are_not_square(name):
    assert assert_keeps_the_contract(LIBRARY, name, ODD_BUDGETS, (3, 8, 10)) == len(ODD_BUDGETS)


def test_check_attack():
    attack = rv.load_attack("art:ProjectedGradientDescent:max_iter=2")
    check_attack(attack, classes=(2, 3), shapes=((4, 8, 8), (1, 8, 12)))


def test_it_finds_the_worst_case_of_the_linear_classifier():
    model = LinearVideo()
    clips = torch.full((5, 3, 8, 6, 10), 0.5, dtype=torch.float64)
    labels, seeds = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    attack = LIBRARY.load("FastGradientMethod")
    for budget in (Budget("linf", torch.linspace(0.001, 0.02, 5)), Budget("l2", clip=0.2), Budget("l2", frame=0.1)):
        gain = (model(attack(model, clips, labels, budget, seeds)) - model(clips))[:, 1]
        torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=1e-4, atol=0)


def test_pgd_agrees_with_ours():
    model, clips, labels, seeds = problem((4, 12, 20), count=8)
    model.eval()
    attack = LIBRARY.load("ProjectedGradientDescent")
    for budget in (Budget("linf", "8/255"), Budget("l2", clip=1.0), Budget("l2", frame=0.5)):
        theirs = attack(model, clips, labels, budget, seeds, max_iter=10, eps_step="0.25*eps")
        ours = pgd(model, clips, labels, budget, seeds, steps=10, step_size=0.25, random_start=False)
        broken = [model(found).argmax(1) != labels for found in (theirs, ours)]
        assert not bool((broken[0] & ~broken[1]).any())  # ours keeps the best iterate, theirs the last
        assert int((broken[1] & ~broken[0]).sum()) <= 1


def test_frame_saliency_changes_the_fewest_frames_that_do():
    model, clips, labels, seeds = problem((4, 12, 20), count=4)
    budget = Budget("linf", "48/255")
    attack = LIBRARY.load("FrameSaliencyAttack")
    all_at_once = attack(model, clips, labels, budget, seeds, max_iter=10, method="one_shot")
    one_by_one = attack(model, clips, labels, budget, seeds, max_iter=10)
    touched = [(found - clips).abs().amax((1, 3, 4)).gt(0).sum(1) for found in (all_at_once, one_by_one)]
    assert touched[0].tolist() == [4] * 4
    assert bool((touched[1] <= touched[0]).all())
    assert int(touched[1].min()) < 4
    with pytest.raises(CardError, match="attacker='BoundaryAttack'; give FastGradientMethod or Projected"):
        attack(model, clips, labels, budget, seeds, attacker="BoundaryAttack")


def test_flicker_is_one_colour_a_frame():
    model, clips, labels, seeds = problem()
    clips = 0.3 + 0.4 * clips
    labels = model.eval()(clips).argmax(1)
    found = small(LIBRARY, "OverTheAirFlickeringPyTorch")(model, clips, labels, Budget("linf", "8/255"), seeds)
    offset = found - clips
    assert float(offset.abs().amax()) > 0
    assert float(offset.std((3, 4)).max()) < 1e-6


def test_a_defence_that_changes_its_input_in_place_cannot_reach_the_clips():
    """Such as the toolbox's own VideoCompression, which multiplies what it is given by 255."""
    clips = torch.rand(1, 3, 2, 8, 8)
    before, layout = clips.clone(), Layout("clip", 2, 8, 8)
    shown = Shown(Window(TinyVideoNet(3).eval(), layout, clips), layout.show(clips), torch.zeros(1), 3, "linf", 0.1, 0)
    array = shown.images.numpy()
    array *= 255
    assert torch.equal(clips, before)


def test_the_toolbox_gets_labels_range_and_classes_explicitly(monkeypatch):
    from art.attacks.evasion import ProjectedGradientDescent

    seen = {}

    def generate(self, x, y=None):
        seen.update(y=y, clip=self.estimator.clip_values, classes=self.estimator.nb_classes, eps=self.eps)
        seen.update(first=self.estimator.channels_first, norm=self.norm, targeted=self.targeted)
        x *= 255
        return x / 255

    monkeypatch.setattr(ProjectedGradientDescent, "generate", generate)
    model, clips, labels, seeds = problem()
    model.surrogate, before = True, clips.clone()
    labels[0] = (labels[0] + 1) % 10  # not what the model predicts
    LIBRARY.load("ProjectedGradientDescent")(model, clips, labels, Budget("linf", "8/255"), seeds)
    assert torch.equal(clips, before)
    wanted = torch.nn.functional.one_hot(labels, 10)  # the groups are two clips and one
    assert np.array_equal(seen["y"], wanted[2:].numpy())
    assert seen["clip"].tolist() == [0.0, 1.0]
    assert (seen["classes"], seen["first"], seen["targeted"]) == (10, True, False)
    assert seen["norm"] == np.inf
    assert seen["eps"] == pytest.approx(8 / 255)


def test_the_classifier_has_no_way_to_the_model():
    model, clips, _, _ = problem()
    layout = Layout("strip", *clips.shape[2:])
    shown = Shown(Window(model, layout, clips), layout.show(clips), torch.zeros(3), 10, "linf", 0.1, 0)
    classifier = _classifier(shown)
    modes = [module.training for module in model.modules()]
    classifier.model.train()
    classifier.loss_gradient(shown.images.numpy(), np.eye(10, dtype=np.float32)[:3])
    classifier.model.eval()
    assert [module.training for module in model.modules()] == modes


def test_refused_attacks_say_why():
    with pytest.raises(CardError, match=r"art:AutoAttack.*not AutoAttack.*battery `standard`"):
        rv.load_attack("art:AutoAttack")
    for name in LIBRARY.refused:
        with pytest.raises(CardError, match=name):
            rv.load_attack(f"art:{name}")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("art:ProjectedGradientDecent", UnknownNameError, "Did you mean 'ProjectedGradientDescent'"),
        ("art:squareattack", UnknownNameError, "Did you mean 'SquareAttack'"),
        ("art:SquareAttack:max_iters=3", CardError, "no parameter 'max_iters'. Did you mean 'max_iter'.*p_init=0.8"),
        ("art:SquareAttack:eps=0.1", CardError, "eps comes from the budget"),
        ("art:DeepFool:batch_size=4", CardError, "batch_size is set by robustvid"),
    ],
)
def test_mistakes_in_the_name_are_named(name, error, message):
    with pytest.raises(error, match=message):
        rv.load_attack(name)


def test_failures_of_the_library_are_named():
    model, clips, labels, seeds = problem()
    attack, budget = LIBRARY.load("FrameSaliencyAttack"), Budget("linf", "1/255")
    with pytest.raises(
        AttackError, match="art:FrameSaliencyAttack failed inside the library: ValueError: Method must be"
    ):
        attack(model, clips, labels, budget, seeds, method="none")


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name == "art" or name.startswith("art.")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match="pip install adversarial-robustness-toolbox"):
        rv.load_attack("art:DeepFool")


def test_the_list_shows_both_libraries_without_importing_them(monkeypatch):
    from click.testing import CliRunner

    from robustvid.cli import main
    from robustvid.evaluation import cards

    for module in ("torchattacks", "art"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(cards, "list_batteries", list)
    output = CliRunner().invoke(main, ["list", "attacks"], env={"COLUMNS": "200"}).output
    lines = {line.split()[0]: line for line in output.splitlines() if line.strip()}
    assert "linf" in lines["torchattacks:PGD"]
    assert "l2" not in lines["torchattacks:PGD"]
    assert "linf, l2" in lines["art:DeepFool"]
    assert "projected into the budget" in output
    assert "refused" in lines["torchattacks:AutoAttack"]
    assert "it is not AutoAttack" in lines["torchattacks:AutoAttack"]
    assert "refused" in lines["art:DPatch"]
    from robustvid.attacks.torchattacks import LIBRARY as OTHER

    for library in (LIBRARY, OTHER):
        assert {f"{library.name}:{name}" for name in (*library.usable, *library.refused)} <= set(lines)
