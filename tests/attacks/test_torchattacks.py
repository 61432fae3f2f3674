"""torchattacks by name: all of it is listed, all that can work does, and nothing of it reaches the caller's things."""

import inspect
import sys

import pytest
import torch
from linear import LinearVideo, worst_case
from second_opinions import ODD_BUDGETS, SHAPE, Lanes, assert_keeps_the_contract, problem, small

import robustvid as rv
from robustvid.attacks.layouts import LAYOUTS, Layout, Window
from robustvid.attacks.pgd import pgd
from robustvid.attacks.torchattacks import LIBRARY
from robustvid.budget import Budget
from robustvid.errors import AttackError, BudgetError, CardError, MissingPackageError, UnknownNameError
from robustvid.testing import TinyVideoNet, check_attack


def test_every_attack_of_the_library_is_usable_or_refused():
    import torchattacks

    base = torchattacks.attack.Attack
    there = {name for name, thing in vars(torchattacks).items() if inspect.isclass(thing) and issubclass(thing, base)}
    assert there == {*LIBRARY.usable, *LIBRARY.refused}
    assert set(torchattacks.__all__) <= there
    assert not {*LIBRARY.usable} & {*LIBRARY.refused}


@pytest.mark.parametrize("name", LIBRARY.usable)
def test_it_runs_and_touches_nothing(name):
    shape = (1, 8, 8) if name == "SparseFool" else SHAPE  # it takes its pixels one by one
    assert assert_keeps_the_contract(LIBRARY, name, shape=shape)


@pytest.mark.parametrize("name", ["PGD", "PGDL2", "DIFGSM", "FAB", "Square"])
def test_it_serves_every_kind_of_budget_and_frames_that_are_not_square(name):
    assert assert_keeps_the_contract(LIBRARY, name, ODD_BUDGETS, (3, 8, 10)) >= 2


def test_check_attack():
    shapes = ((4, 8, 8), (1, 8, 12))
    check_attack(rv.load_attack("torchattacks:MIFGSM:steps=2"), classes=(2, 3), shapes=shapes)
    check_attack(rv.load_attack("torchattacks:PGDL2:steps=2"), classes=(3,), shapes=shapes)
    check_attack(rv.load_attack("torchattacks:TIFGSM:steps=2"), classes=(3,), shapes=((4, 8, 8),))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_layouts_fold_back_to_the_clip_bit_for_bit(name, frames):
    clips = torch.rand(2, 3, frames, 5, 6)
    layout = Layout(name, frames, 5, 6)
    images = layout.show(clips)
    assert torch.equal(layout.fold(images), clips)
    assert images.is_contiguous()
    images.zero_()
    assert float(clips.min()) >= 0
    assert float(clips.max()) > 0  # the images are a copy


def test_the_sheet_is_the_smallest_square_and_cells_are_whole_frames():
    clips = torch.arange(8.0)[None, None, :, None, None].expand(1, 3, 8, 4, 4)
    sheet = Layout("sheet", 8, 4, 4).show(clips)
    assert sheet.shape == (1, 3, 12, 12)
    assert torch.equal(sheet[0, 0, ::4, ::4], torch.tensor([[0.0, 1, 2], [3, 4, 5], [6, 7, 0.5]]))


def test_single_frames_get_their_clips_logits_and_frames_may_not_be_missing():
    model = TinyVideoNet(4).eval()
    clips = torch.rand(2, 3, 3, 8, 8)
    layout = Layout("frames", 3, 8, 8)
    window = Window(model, layout, clips)
    assert torch.equal(window(layout.show(clips)), model(clips).repeat_interleave(3, 0))
    with pytest.raises(AttackError, match="4 images are no whole number of clips of 3 frames"):
        window(layout.show(clips)[:4])


def test_the_library_cannot_reach_the_model():
    model = TinyVideoNet(4).eval()
    window = Window(model, Layout("strip", 4, 8, 8), torch.rand(1, 3, 4, 8, 8))
    window.train().requires_grad_(True)
    assert not any(module.training for module in model.modules())
    assert [name for name, _ in window.named_parameters()] == ["anchor"]


def test_it_finds_the_worst_case_of_the_linear_classifier():
    model = LinearVideo()
    clips = torch.full((5, 3, 8, 6, 10), 0.5, dtype=torch.float64)
    labels, seeds = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    for name, budget in (
        ("PGD", Budget("linf", torch.linspace(0.001, 0.02, 5))),
        ("FGSM", Budget("linf", "2/255")),
        ("PGDL2", Budget("l2", clip=0.2)),
        ("PGDL2", Budget("l2", frame=0.1)),
    ):
        settings = {} if name == "FGSM" else {"steps": 12}
        if name == "PGDL2":  # its own default, 1e-10, drowns the gradients of clips as sure as these
            settings["eps_for_division"] = 0.0
        found = LIBRARY.load(name)(model, clips, labels, budget, seeds, **settings)
        gain = (model(found) - model(clips))[:, 1]
        # A random start spends a little of the l2 ball on directions of no use.
        torch.testing.assert_close(gain, worst_case(budget, model.difference), rtol=3e-2, atol=0)


def test_pgd_agrees_with_ours():
    model, clips, labels, seeds = problem((4, 12, 20), count=8)
    model.eval()
    budget = Budget("linf", "1/255")
    theirs = LIBRARY.load("PGD")(model, clips, labels, budget, seeds, steps=1, alpha=0.002, random_start=False)
    ours = pgd(model, clips, labels, budget, seeds, steps=1, step_size=0.002 * 255, random_start=False)
    assert torch.equal(theirs, ours)
    for eps in (4, 8, 16):
        budget = Budget("linf", f"{eps}/255")
        theirs = LIBRARY.load("PGD")(model, clips, labels, budget, seeds, steps=10, random_start=False)
        ours = pgd(model, clips, labels, budget, seeds, steps=10, step_size=0.25, random_start=False)
        broken = [model(found).argmax(1) != labels for found in (theirs, ours)]
        # Ours keeps the best iterate, theirs the last.
        assert not bool((broken[0] & ~broken[1]).any())
        assert int((broken[1] & ~broken[0]).sum()) <= 1


def test_steps_follow_the_radius_unless_they_are_given():
    model, clips, labels, seeds = problem()
    budget = Budget("linf", "4/255")

    def largest(**params):
        found = LIBRARY.load("BIM")(model, clips, labels, budget, seeds, steps=1, **params)
        return float((found - clips).abs().max())

    assert largest() == pytest.approx(1 / 255, rel=1e-4)
    assert largest(alpha="0.5*eps") == pytest.approx(2 / 255, rel=1e-4)
    assert largest(alpha="3/255") == pytest.approx(3 / 255, rel=1e-4)
    assert largest(alpha=0.01) == pytest.approx(0.01, rel=1e-4)


def test_clips_that_are_wrong_already_are_left_alone_unless_the_model_is_a_surrogate():
    model, clips, labels, seeds = problem()
    labels[1] = (labels[1] + 1) % 10
    attack, budget = small(LIBRARY, "FGSM"), Budget("linf", "8/255")
    assert (attack(model, clips, labels, budget, seeds) - clips).flatten(1).any(1).tolist() == [True, False, True]
    model.surrogate = True
    assert bool((attack(model, clips, labels, budget, seeds) - clips).flatten(1).any(1).all())


def test_groups_are_attacked_in_few_calls():
    model, clips, labels, seeds = problem(count=7)
    sizes = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    small(LIBRARY, "FGSM")(model, clips, labels, Budget("linf", "8/255"), seeds)
    assert sizes == [7, 4, 2, 1]


def test_refused_attacks_say_why():
    with pytest.raises(CardError, match=r"torchattacks:AutoAttack.*not AutoAttack.*10 steps.*battery `standard`"):
        rv.load_attack("torchattacks:AutoAttack")
    for name in LIBRARY.refused:
        with pytest.raises(CardError, match=name):
            rv.load_attack(f"torchattacks:{name}")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("torchattacks:PDG", UnknownNameError, "Did you mean 'PGD'"),
        ("torchattacks:pgd", UnknownNameError, "Did you mean 'PGD'"),
        ("torchattacks:PGD:step=3", CardError, r"no parameter 'step'. Did you mean 'steps'.*alpha=0.25\*eps, steps=10"),
        ("torchattacks:PGD:eps=0.1", CardError, "eps comes from the budget"),
        ("torchattacks:APGD:norm=L2", CardError, "norm comes from the budget"),
        ("torchattacks:FAB:seed=3", CardError, "seed is set by robustvid"),
        ("torchattacks:PGD:alpha=much", CardError, r"'much' is not a step: write 0.01, 2/255, or 0.1\*eps"),
        ("torchattacks:PGD:steps=many", CardError, "wants an int"),
    ],
)
def test_mistakes_in_the_name_are_named(name, error, message):
    with pytest.raises(error, match=message):
        rv.load_attack(name)


def test_a_budget_of_another_norm_is_refused_with_an_attack_that_serves_it():
    model, clips, labels, seeds = problem()
    with pytest.raises(BudgetError, match="BIM knows linf alone, not l2; use torchattacks:PGDL2"):
        small(LIBRARY, "BIM")(model, clips, labels, Budget("l2", clip=1.0), seeds)
    with pytest.raises(BudgetError, match="use torchattacks:PGD"):
        small(LIBRARY, "PGDL2")(model, clips, labels, Budget("linf", "8/255"), seeds)


def test_failures_of_the_library_are_named_and_leave_no_trace():
    model, clips, labels, seeds = problem(classes=3)
    budget = Budget("linf", "8/255")
    with pytest.raises(AttackError, match="torchattacks:APGDT needs 4 classes or more, the model has 3"):
        small(LIBRARY, "APGDT")(model, clips, labels, budget, seeds)
    with pytest.raises(AttackError, match="torchattacks:TIFGSM failed inside the library: NotImplementedError"):
        LIBRARY.load("TIFGSM")(model, clips, labels, budget, seeds, kernel_name="none")
    assert model.training


def test_nan_is_no_result():
    class Broken(torch.nn.Module):
        def forward(self, clips):
            steep = (clips * 0).sum((1, 2, 3, 4)).sqrt()  # its gradient at 0 is infinity times nothing
            return torch.stack([1 + steep, -steep], 1)

    clips, labels = torch.rand(1, 3, 4, 8, 8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(AttackError, match="torchattacks:PGDL2 returned NaN or infinite pixels"):
        small(LIBRARY, "PGDL2")(Broken(), clips, labels, Budget("l2", clip=1.0), torch.ones(1))


def test_the_key_follows_library_version_and_parameters(monkeypatch):
    plain = rv.load_attack("torchattacks:PGD")
    assert plain.key == rv.load_attack("torchattacks:PGD", steps=10).key
    assert plain.key != rv.load_attack("torchattacks:PGD:steps=11").key
    assert rv.load_attack("torchattacks:PGD:steps=11").name == "torchattacks:PGD:steps=11"
    before = plain.key
    monkeypatch.setattr("importlib.metadata.version", lambda package: "9.9")
    assert rv.load_attack("torchattacks:PGD").key != before


def test_a_card_may_name_an_attack_of_a_library(tmp_path):
    card = tmp_path / "mine.toml"
    card.write_text('title = "t"\nversion = 1\nattack = "torchattacks:PGD"\n[params]\nsteps = 3\n')
    attack = rv.load_attack(str(card))
    assert attack.arguments()["steps"] == 3
    card.write_text(card.read_text() + "eps = 0.1\n")
    with pytest.raises(CardError, match="eps comes from the budget"):
        rv.load_attack(str(card))


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(MissingPackageError, match="pip install torchattacks"):
        rv.load_attack("torchattacks:PGD")
    with pytest.raises(CardError, match="not AutoAttack"):
        rv.load_attack("torchattacks:AutoAttack")


def test_the_callers_gradient_mode_does_not_matter(tiny_model):
    attack = rv.load_attack("torchattacks:PGD:steps=2")
    clips = torch.rand(2, 3, 4, 16, 16)
    labels = Lanes(tiny_model.eval())(clips).argmax(1)
    with torch.no_grad():
        found = attack(tiny_model, clips, labels, Budget("linf", "8/255"), torch.arange(2))
    assert float((found - clips).abs().max()) == pytest.approx(8 / 255, rel=1e-3)
