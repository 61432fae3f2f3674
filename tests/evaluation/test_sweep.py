"""The sweep: verdicts that trust nobody, the same answers in any batch, nothing lost, nothing changed."""

import functools
import json
import operator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import FakeVideos

import robustvid as rv
from robustvid.errors import AttackError, DataError, ModelError, RunError
from robustvid.evaluation.cards import Battery
from robustvid.evaluation.results import wilson
from robustvid.evaluation.sweep import choose_clips
from robustvid.models.classifier import VideoClassifier
from robustvid.testing import TinyVideoNet

LINF = [rv.Budget("linf", f"{n}/255") for n in (1, 4, 16, 64)]
L2 = [rv.Budget("l2", clip=radius) for radius in (0.5, 2.0, 8.0)]
ATTACKS = ["fgsm", "pgd:steps=5"]


def by_cell(results, column):
    keys = ("sample", "attack", "norm", "eps_frame", "eps_clip", "frames")
    cells = {tuple(getattr(row, key) for key in keys): getattr(row, column) for row in results.rows}
    assert len(cells) == len(results.rows)
    return cells


def flags_of(results):
    return by_cell(results, "robust")


def margins_of(results):
    return by_cell(results, "margin")


@pytest.mark.parametrize("strategy", ["bisect", "every"])
def test_a_battery_gives_falling_curves_on_every_clip(tiny_model, fake_videos, strategy):
    battery = Battery("two", tuple(rv.load_attack(name) for name in ATTACKS), 1)
    results = rv.evaluate(tiny_model, fake_videos, battery, [*LINF, *L2], strategy=strategy)
    assert results.complete
    assert results.n == 24
    assert results.clean["correct"] == 20  # one label in six is wrong
    for threat in ("linf-frame", "l2-clip"):
        curve = results.curve(threat)
        assert curve["correct"].is_monotonic_decreasing
        assert curve["correct"].iloc[0] == 20
        assert curve["correct"].iloc[-1] < 20
        assert (curve["n"] == 24).all()
        first, worst = results.curve(threat, "fgsm"), results.curve(threat, "pgd:steps=5")
        assert (worst["correct"] <= first["correct"]).all()
        assert (worst["correct"] == curve["correct"]).all()
    frame = results.frame()
    assert bool((frame["size"] <= 1).all())
    assert bool(((frame["margin"] < 0) == ~frame["robust"]).all())
    assert results.curve().iloc[1][["eps_frame", "eps_clip"]].tolist() == ["1/255", None]


def test_both_strategies_agree_on_a_plain_model(tiny_model, fake_videos):
    bisect, every = (
        rv.evaluate(tiny_model, fake_videos, ATTACKS, LINF, strategy=strategy) for strategy in ("bisect", "every")
    )
    assert bisect.curve()["correct"].tolist() == every.curve()["correct"].tolist()
    assert len(bisect.rows) < len(every.rows)


def test_attacks_given_one_by_one_meet_every_clip(tiny_model, fake_videos):
    alone = rv.evaluate(tiny_model, fake_videos, ["fgsm"], LINF)
    both = rv.evaluate(tiny_model, fake_videos, ATTACKS, LINF)
    assert both.curve(attack="fgsm").equals(alone.curve(attack="fgsm"))
    worst = both.curve()["correct"]
    assert (worst <= both.curve(attack="fgsm")["correct"]).all()
    assert (worst <= both.curve(attack="pgd:steps=5")["correct"]).all()


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_nothing(tiny_model, fake_videos, batch_size):
    budgets = [*LINF, *L2, *(rv.Budget("linf", "8/255", frames=k) for k in (1, 2))]
    reference = rv.evaluate(tiny_model, fake_videos, ATTACKS, budgets, out="reference")
    results = rv.evaluate(tiny_model, fake_videos, ATTACKS, budgets, out="other", batch_size=batch_size)
    assert flags_of(results) == flags_of(reference)
    ours, theirs = (margins_of(run) for run in (results, reference))
    assert ours == theirs  # bit for bit: the probe's lanes


def test_going_on_measures_only_what_is_missing(tiny_model, fake_videos):
    whole = rv.evaluate(tiny_model, fake_videos, ATTACKS, LINF, out="run")
    journal = Path("run/rows.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    before = flags_of(whole)
    for keep in (0, 7, len(lines) // 2, len(lines) - 1):
        journal.write_bytes(b"".join(lines[:keep]) + lines[keep][:20])
        partial = rv.Results("run")
        assert not partial.complete
        assert partial.n == sum(b'"clean", "card_key"' in line.replace(b'"attack": ', b"") for line in lines[:keep])
        again = rv.evaluate(tiny_model, fake_videos, ATTACKS, LINF, out="run", batch_size=3)
        assert flags_of(again) == before
        assert again.complete
    untouched = journal.read_bytes()
    rv.evaluate(tiny_model, fake_videos, ATTACKS, LINF, out="run")
    assert journal.read_bytes() == untouched


def test_a_partial_run_counts_clips_up_to_the_first_unfinished_one(tiny_model, fake_videos):
    """Wrong clips are finished at once; counting them before the right ones would bias the accuracy down."""
    rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run", batch_size=4)
    journal = Path("run/rows.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:16]))  # clean rows of the first wave
    partial = rv.Results("run")
    assert partial.n == 16
    order = [row.robust for row in partial.rows]
    assert partial.curve()["n"].tolist() == [order.index(True)] * 5
    assert json.dumps(partial.summary(), allow_nan=False)


def test_another_spec_in_the_same_folder_is_refused_and_fresh_sets_aside(tiny_model, fake_videos):
    rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")
    with pytest.raises(RunError, match="belongs to another run"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", L2, out="run")
    rv.evaluate(tiny_model, fake_videos, "fgsm", L2, out="run", fresh=True)
    assert rv.Results("run.old1").threats == ["linf-frame"]
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="full")
    Path("file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="file/run")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"batch_size": 2}, True),
        ({"seed": 1}, False),
        ({"limit": 5}, False),
        ({"strategy": "every"}, False),
    ],
)
def test_the_folder_is_named_after_all_that_could_change_a_number(tiny_model, fake_videos, change, same):
    one = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1])
    other = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1], **change)
    assert (one.folder == other.folder) == same


def test_other_weights_are_another_run(tiny_model, fake_videos):
    one = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1])
    with torch.no_grad():
        tiny_model.network.head.bias[0] += 1e-3
    assert rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1]).folder != one.folder


def too_far(model, clips, labels, budget, seeds):
    return (clips + 1.01 * budget.steepest(torch.ones_like(clips))).clamp(0, 1)


def out_of_range(model, clips, labels, budget, seeds):
    return clips + 2


def not_a_number(model, clips, labels, budget, seeds):
    return clips * float("nan")


def wrong_shape(model, clips, labels, budget, seeds):
    return clips[:, :, :1]


def half(model, clips, labels, budget, seeds):
    return clips.half()


def in_place(model, clips, labels, budget, seeds):
    clips.add_(0.5).clamp_(0, 1)
    return clips


def one_frame_too_many(model, clips, labels, budget, seeds):
    return (clips + 1e-3).clamp(0, 1)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (too_far, "too_far left its budget: on fake/.* it used 1.01"),
        (out_of_range, r"out_of_range returned clips that span .* outside \[0, 1\]"),
        (not_a_number, "not_a_number returned clips that span nan"),
        (wrong_shape, "wrong_shape returned"),
        (half, "half returned torch.float16"),
        (in_place, "in_place left its budget"),
    ],
)
def test_an_attack_that_cheats_is_an_error_that_names_it(tiny_model, fake_videos, attack, message):
    with pytest.raises(AttackError, match=message):
        rv.evaluate(tiny_model, fake_videos, [attack], LINF)


def test_frames_are_counted_too(tiny_model, fake_videos):
    with pytest.raises(AttackError, match="left its budget"):
        rv.evaluate(tiny_model, fake_videos, [one_frame_too_many], [rv.Budget("linf", "8/255", frames=2)])


def test_cost_is_counted_from_outside(tiny_model, fake_videos):
    results = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1], limit=8)
    attacked = [row for row in results.rows if row.attack == "fgsm"]
    assert {(row.forwards, row.backwards) for row in attacked} == {(2.0, 1.0)}  # FGSM's own, and the verdict
    clean = [row for row in results.rows if row.attack == "clean"]
    assert {(row.forwards, row.backwards) for row in clean} == {(1.0, 0.0)}


def test_the_model_is_as_before_also_after_an_error(tiny_model, fake_videos):
    tiny_model.train()
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    randomness = torch.get_rng_state()
    rv.evaluate(tiny_model, fake_videos, "pgd:steps=2", LINF[:1])
    with pytest.raises(AttackError):
        rv.evaluate(tiny_model, fake_videos, [out_of_range], LINF[:1])
    assert all(module.training for module in tiny_model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in tiny_model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), randomness)


class Hungry(TinyVideoNet):
    """A network that runs out of memory on more than four clips at once."""

    largest = 0

    def forward(self, clips):
        if len(clips) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        type(self).largest = max(self.largest, len(clips))
        return super().forward(clips)


def test_out_of_memory_halves_and_goes_on(tiny_model, fake_videos, caplog):
    network = Hungry(4)
    network.load_state_dict(tiny_model.network.state_dict())
    results = rv.evaluate(VideoClassifier(network, tiny_model.card), fake_videos, "fgsm", LINF, out="hungry")
    assert results.complete
    assert Hungry.largest == 4
    assert "out of memory" in caplog.text
    assert results.curve().equals(rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="fed").curve())


def test_a_changed_video_is_noticed_on_resume(tiny_model, fake_videos):
    rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")
    journal = Path("run/rows.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:30]))
    original = fake_videos.sample
    fake_videos.sample = lambda index, clip: original(index, clip)._replace(frames=original(index, clip).frames // 2)
    with pytest.raises(RunError, match="not the clip that this run has measured"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")


def test_classes_must_agree(tiny_model):
    class Other(FakeVideos):
        classes = ("a", "b", "d", "c")

    with pytest.raises(ModelError, match="class 2 is 'c' for the model and 'd' for the data"):
        rv.evaluate(tiny_model, Other(tiny_model), "fgsm", LINF)
    with pytest.raises(ModelError, match="has no card"):
        rv.evaluate(TinyVideoNet(4), Other(tiny_model), "fgsm", LINF)


def test_clips_are_drawn_by_seed_and_nested():
    assert choose_clips(50, 10, 0) == choose_clips(50, 20, 0)[:10]
    assert choose_clips(50, 10, 0) != choose_clips(50, 10, 1)
    assert sorted(choose_clips(50, None, 0)) == list(range(50))
    for videos, limit in ((0, None), (5, 0)):
        with pytest.raises(DataError):
            choose_clips(videos, limit, 0)


def worst(model, clips, labels, budget, seeds):
    return clips


@pytest.mark.parametrize("attacks", [[], ["fgsm", "fgsm"], ["pgd", "pgd:steps=20"], [worst]])
def test_no_attack_or_the_same_twice_is_refused(tiny_model, fake_videos, attacks):
    with pytest.raises(AttackError):
        rv.evaluate(tiny_model, fake_videos, attacks, LINF)


def test_a_surface_is_monotone_both_ways(tiny_model, fake_videos):
    budgets = [rv.Budget("linf", f"{n}/255", frames=k) for n in (2, 8, 32) for k in (1, 2, None)]
    results = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", budgets)
    assert results.threats == ["linf-frame-k"]
    grid = results.curve().iloc[1:].pivot(index="eps_frame", columns="frames", values="correct")
    assert grid.shape == (3, 3)
    by_size = results.curve().iloc[1:]["correct"].to_numpy().reshape(3, 3)  # frames, then eps
    assert (by_size[1:] <= by_size[:-1]).all()
    assert (by_size[:, 1:] <= by_size[:, :-1]).all()


def test_kept_clips_are_what_was_measured(tiny_model, fake_videos):
    results = rv.evaluate(tiny_model, fake_videos, "pgd:steps=5", LINF)
    kept = list(results.clips())
    assert kept
    for clip in kept:
        shown = clip.adversarial - clip.clean.float() / 255
        assert float(shown.abs().max()) == pytest.approx(clip.row["linf"], abs=1e-7)
        with rv.frozen(tiny_model), torch.no_grad():
            assert int(tiny_model(clip.adversarial[None]).argmax()) == clip.row["predicted"]


def test_wilson_matches_known_values():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Newcombe 1998, table I has such values
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998


def test_a_function_that_closes_over_another_value_is_another_run(tiny_model, fake_videos):
    def make(strength):
        def push(model, clips, labels, budget, seeds):
            return (clips + strength * budget.steepest(torch.ones_like(clips))).clamp(0, 1)

        return push

    weak, strong = (rv.evaluate(tiny_model, fake_videos, [make(strength)], LINF[:1]) for strength in (0.5, 1.0))
    assert weak.folder != strong.folder
    partial = rv.evaluate(tiny_model, fake_videos, functools.partial(make(1.0)), LINF[:1])
    assert partial.attacks == ["push"]


def test_a_clip_that_cannot_be_kept_costs_no_measurement(tiny_model, fake_videos, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("robustvid.evaluation.evidence.save_file", full)
    assert rv.evaluate(tiny_model, fake_videos, "fgsm", LINF).complete
    assert "cannot keep the clip" in caplog.text


def test_damage_to_derived_files_is_one_clear_error(tiny_model, fake_videos):
    results = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")
    Path("run/clips/9-x.safetensors").write_bytes(b"no")
    assert list(rv.Results("run").clips())
    for name in ("model_flags.json", "environment.json"):
        before = Path("run", name).read_text()
        for damage in ("{", '["a"]'):
            Path("run", name).write_text(damage)
            with pytest.raises(RunError, match="is damaged"):
                _ = (rv.Results("run").flags, rv.Results("run").environment)
        Path("run", name).write_text(before)
    spec = json.loads(Path("run/spec.json").read_text())
    for part in ("data", "model", "attacks", "budgets"):
        Path("run/spec.json").write_text(json.dumps(spec | {part: "x"}))
        with pytest.raises(RunError, match="is damaged"):
            rv.Results("run")
    Path("run/spec.json").write_text(json.dumps(spec | {"kind": []}))
    with pytest.raises(RunError, match="of kind"):
        rv.Results("run")
    assert results.complete


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "name"), 3),
        (("model", "weights"), None),
        (("model", "clip", "frames"), None),
        (("model", "clip", "frames"), "8"),
        (("model", "clip", "size"), [16]),
        (("model", "clip", "size"), [16, -16]),
        (("model", "clip", "size"), [16, None]),
        (("model", "clip", "size"), [16, 10**400]),
        (("data", "clips"), True),
        (("attacks", 0), []),
        (("attacks", 0, 0, "name"), -1),
        (("attacks", 0, 0, "key"), {}),
        (("strategy",), 1),
        (("data", "split"), None),
        (("budgets", 0, "frames"), 10**400),
    ],
)
def test_a_spec_whose_values_are_of_another_type_is_one_clear_error(tiny_model, fake_videos, path, value):
    rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")
    spec = json.loads(Path("run/spec.json").read_text())
    *above, last = path
    functools.reduce(operator.getitem, above, spec)[last] = value
    Path("run/spec.json").write_text(json.dumps(spec))
    with pytest.raises(RunError, match=r"spec\.json is damaged"):
        rv.Results("run")


def test_what_could_not_be_read_again_is_not_measured(tiny_model, fake_videos):
    tiny_model.card = replace(tiny_model.card, name=3)
    with pytest.raises(RunError, match=r"could not be read again: model\.name is 3; a str is wanted"):
        rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")
    assert not Path("run").exists()


@pytest.mark.parametrize("change", [{"versions": "x"}, {"command": True}, {"command": [1]}, {"started": "soon"}])
def test_a_note_of_the_machine_that_nobody_can_show_is_one_clear_error(tiny_model, fake_videos, change):
    rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run")
    path = Path("run/environment.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=r"environment\.json is damaged.*run the same attack again"):
        _ = rv.Results("run").environment
    assert rv.evaluate(tiny_model, fake_videos, "fgsm", LINF, out="run").environment["versions"]


def test_a_model_with_another_number_of_logits_is_refused(tiny_model, fake_videos):
    for count in (3, 9):
        with pytest.raises(ModelError, match=f"{count} logits for 4 classes"):
            rv.evaluate(VideoClassifier(TinyVideoNet(count), tiny_model.card), fake_videos, "fgsm", LINF)


def test_what_the_weights_do_not_tell_is_part_of_the_spec(tiny_model, fake_videos):
    one = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1])
    tiny_model.network.register_buffer("shift", torch.ones(1), persistent=False)
    two = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1])
    tiny_model.network.shift += 1
    three = rv.evaluate(tiny_model, fake_videos, "fgsm", LINF[:1])
    assert len({run.folder for run in (one, two, three)}) == 3


def test_float32_is_not_rounded_to_tf32_while_models_are_measured(fake_videos):
    seen = set()

    class Watching(TinyVideoNet):
        def forward(self, clips):
            seen.add((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().forward(clips)

    card = rv.ModelCard("watching", "tiny", ("a", "b", "c", "d"), rv.ClipSpec(4, 1, (16, 16)))
    before = torch.backends.cudnn.allow_tf32
    rv.evaluate(VideoClassifier(Watching(4), card), fake_videos, "fgsm", [rv.Budget("linf", "4/255")])
    assert seen == {(False, False)}
    assert torch.backends.cudnn.allow_tf32 is before is True
