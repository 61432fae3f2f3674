"""The loop: it goes on where it was stopped, keeps the best, and says what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import Brightness, small_model

import robustvid as rv
from robustvid.data.decode import write_video
from robustvid.data.folder import FolderDataset
from robustvid.errors import BudgetError, CardError, DecodeError, ModelError, RunError, TrainingStopped
from robustvid.models.classifier import weights_digest
from robustvid.training import loop
from robustvid.training.awp import perturbed_weights
from robustvid.training.loop import train
from robustvid.training.plan import TrainingPlan, parse_threat
from robustvid.training.schedule import GRID, radius_factor
from robustvid.training.validation import alarms, hold_out, radius_shares

LINF = "linf frame 8/255"
PLAN = TrainingPlan(epochs=2, batch_size=8, holdout=6, objective="pgd:steps=2", threats=(LINF,), ema=0.5)


class After:
    """Says yes after so many questions."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, objective="free:replays=2", ema=0.0), replace(PLAN, awp=0.01)])
@pytest.mark.parametrize("stops", [[1], [3, 2], [4]])
def test_stopped_and_resumed_is_the_same_as_never_stopped(plan, stops, tmp_path):
    whole = train(small_model(), Brightness(), plan, out=tmp_path / "whole")
    for count in stops:
        with pytest.raises(TrainingStopped, match="everything is kept"):
            train(small_model(), Brightness(), plan, out=tmp_path / "parts", stop=After(count))
        torch.rand(7)  # the random state of another process
    parts = train(small_model(), Brightness(), plan, out=tmp_path / "parts")
    assert weights_digest(parts) == weights_digest(whole)
    assert weights_digest(rv.load_model(str(tmp_path / "parts"))) == weights_digest(whole)


def test_a_finished_training_is_read_again(tmp_path):
    first = train(small_model(), Brightness(), PLAN, out=tmp_path / "run")
    asked = []
    again = train(small_model(), Brightness(), PLAN, out=tmp_path / "run", stop=lambda: asked.append(1))
    assert weights_digest(first) == weights_digest(again)
    assert first.card == again.card
    assert not asked


def test_another_plan_does_not_go_on_in_the_same_folder(tmp_path):
    train(small_model(), Brightness(), PLAN, out=tmp_path / "run")
    with pytest.raises(RunError, match="belongs to another run"):
        train(small_model(), Brightness(), replace(PLAN, lr=0.1), out=tmp_path / "run")
    train(small_model(), Brightness(), replace(PLAN, lr=0.1), out=tmp_path / "run", fresh=True)
    assert (tmp_path / "run.old1" / "state.pt").is_file()


def test_a_damaged_state_is_named(tmp_path):
    train(small_model(), Brightness(), PLAN, out=tmp_path / "run")
    (tmp_path / "run" / "state.pt").write_bytes(b"not a state")
    with pytest.raises(RunError, match=r"state\.pt cannot be read .*--fresh"):
        train(small_model(), Brightness(), PLAN, out=tmp_path / "run")
    torch.save({"key": "another"}, tmp_path / "run" / "state.pt")
    with pytest.raises(RunError, match=r"state\.pt is not a state of this training"):
        train(small_model(), Brightness(), PLAN, out=tmp_path / "run")


@pytest.mark.parametrize("lost", ["left_out", "step", "optimizer"])
def test_a_state_that_lacks_something_is_named(lost, tmp_path):
    """Such as one of an older version of robustvid."""
    with pytest.raises(TrainingStopped):
        train(small_model(), Brightness(), PLAN, out=tmp_path / "run", stop=After(1))
    path = tmp_path / "run" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state[lost]
    torch.save(state, path)
    with pytest.raises(RunError, match=rf"state\.pt cannot be gone on with \(.*{lost}.*\); --fresh sets the training"):
        train(small_model(), Brightness(), PLAN, out=tmp_path / "run")


def test_the_best_epoch_is_kept(monkeypatch, tmp_path):
    accuracies = iter([0.25, 0.75, 0.5])
    digests = []

    def validate(model, held, threats):
        digests.append(weights_digest(model))
        return {"val/clean_acc": 1.0, "val/robust_acc": next(accuracies)}

    monkeypatch.setattr(loop, "validate", validate)
    best = train(small_model(), Brightness(), replace(PLAN, epochs=3), out=tmp_path / "run")
    assert weights_digest(best) == digests[1]
    assert best.card.lineage[-1]["selected"] == {"epoch": 2, "val/clean_acc": 1.0, "val/robust_acc": 0.75}
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [record["val/robust_acc"] for record in history] == [0.25, 0.75, 0.5]


def test_the_held_out_clips_are_not_trained_on():
    split = hold_out(Brightness(), small_model().card.clip, 6, 0)
    assert len(split.held.labels) == 6
    assert len(split.training) == 30
    seen = set()

    class Spy(Brightness):
        def sample(self, index, clip):
            seen.add(index)
            return super().sample(index, clip)

    data = Spy()
    train(small_model(), data, replace(PLAN, holdout=0, epochs=1))
    assert len(seen) == 36
    held = set(range(36)) - set(split.training)
    frames = [data.sample(i, small_model().card.clip).frames for i in sorted(held)]
    assert all(torch.equal(a, b) for a, b in zip(frames, split.held.frames, strict=True))


def test_parts_of_a_batch_add_up(monkeypatch):
    """Without BatchNorm a batch in parts has the gradient of the whole."""
    grads = {}
    for parts in (1, 3):
        model = small_model()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.momentum = 0.0
                monkeypatch.setattr(module, "forward", lambda x: x)
        train_once(model, replace(PLAN, epochs=1, batch_size=36, holdout=0, accumulate=parts, ema=0), grads, parts)
    for one, other in zip(grads[1], grads[3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def train_once(model, plan, grads, key):
    class Recorded(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            grads[key] = [p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None]

    original = torch.optim.AdamW
    torch.optim.AdamW = Recorded
    try:
        train(model, Brightness(), replace(plan, objective="natural"))
    finally:
        torch.optim.AdamW = original


def test_weight_perturbation_comes_back_exactly():
    model = small_model().train()
    clips, labels = torch.rand(8, 3, 4, 16, 16), torch.tensor([0, 1] * 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss():
        return torch.nn.functional.cross_entropy(model(clips), labels)

    with perturbed_weights(model, loss, 0.01):
        for name, weight in model.named_parameters():
            moved = float((weight.detach() - before[name]).norm())
            wanted = 0.01 * float(before[name].norm()) if weight.ndim > 1 else 0.0
            assert moved == pytest.approx(wanted, rel=1e-3, abs=1e-7), name
        assert all(torch.equal(b, before[n]) for n, b in model.named_buffers() if n in before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("mix", ["average", "max", "random"])
def test_threats_are_mixed(mix):
    plan = replace(PLAN, threats=(LINF, "l2 clip 0.5", "flicker:steps=2 @ linf frame 16/255"), mix=mix, epochs=1)
    model = train(small_model(), Brightness(), plan)
    assert TrainingPlan(**model.card.lineage[-1]["plan"]) == plan


def test_max_takes_the_worst_of_each_clip():
    natural = TrainingPlan(epochs=2, batch_size=8, holdout=0, lr=0.02)
    model = train(small_model(), Brightness(), natural)
    nothing, opposite = "toys:nothing @ linf frame 0.5", "toys:opposite @ linf frame 0.5"
    plan = replace(natural, objective="pgd", mix="max", lr=1e-4)
    both, worst, least = (
        weights_digest(train(model, Brightness(), replace(plan, threats=threats)))
        for threats in ((nothing, opposite), (opposite,), (nothing,))
    )
    assert both == worst != least


def test_schedules():
    factors = [radius_factor("curriculum", done, [], 0) for done in (0, 0.375, 0.75, 1)]
    assert factors == [0, 0.5, 1, 1]
    assert [radius_factor("reverse", 1 - done, [], 0) for done in (0, 0.375, 0.75, 1)] == factors
    assert radius_factor("constant", 0.0, [], 0) == 1
    assert radius_factor("adaptive", 0.0, [0] * 9 + [1], 5) == 1
    drawn = {radius_factor("adaptive", 0.0, [0.1] * 10, seed) for seed in range(200)}
    assert drawn == set(GRID)


def test_the_adaptive_schedule_draws_where_the_loss_is():
    model = train(small_model(), Brightness(), replace(PLAN, schedule="adaptive"))
    split = hold_out(Brightness(), model.card.clip, 6, 0)
    shares = radius_shares(model, split.held, [parse_threat("linf frame 64/255")])
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] > shares[0]


def record(epoch, robust, one_step, train_acc):
    return {"epoch": epoch, "val/robust_acc": robust, "val/fgsm_acc": one_step, "train/acc": train_acc}


@pytest.mark.parametrize(
    ("history", "wanted"),
    [
        ([record(1, 0.5, 0.6, 0.6), record(2, 0.02, 0.9, 0.9)], ["catastrophic-overfitting"]),
        ([record(1, 0.0, 0.9, 0.9)], ["catastrophic-overfitting"]),
        ([record(1, 0.5, 0.6, 0.6), record(2, 0.2, 0.6, 0.9)], []),
        ([record(1, 0.5, 0.6, 0.6), record(2, 0.2, 0.6, 0.5), record(3, 0.2, 0.6, 0.5)], ["catastrophic-overfitting"]),
        ([record(1, 0.6, 0.7, 0.6), record(2, 0.45, 0.6, 0.8), record(3, 0.4, 0.6, 0.9)], ["robust-overfitting"]),
        ([record(1, 0.6, 0.7, 0.6), record(2, 0.45, 0.6, 0.8)], []),
        ([record(1, 0.0, 0.2, 0.9), record(2, 0.05, 0.27, 0.9)], []),
        ([record(1, 0.6, 0.7, 0.6), record(2, 0.45, 0.6, 0.5)], []),
        ([record(1, 0.5, 0.75, 0.6), record(2, 0.6, 0.85, 0.7)], []),
        ([record(1, 0.0, 0.1, 0.9)], []),
    ],
)
def test_alarms(history, wanted):
    assert [alarm.partition(":")[0] for alarm in alarms(history)] == wanted


def test_a_loss_that_explodes_keeps_the_best(monkeypatch, tmp_path):
    batches = loop.training_batches

    def poisoned(source, clip, size, seed, epoch, **more):
        for clips, labels in batches(source, clip, size, seed, epoch, **more):
            yield clips * (float("nan") if epoch == 2 else 1), labels

    monkeypatch.setattr(loop, "training_batches", poisoned)
    with pytest.raises(ModelError, match=r"the training loss is nan.*best epoch are in"):
        train(small_model(), Brightness(), replace(PLAN, epochs=4, objective="natural"), out=tmp_path / "run")
    assert rv.load_model(str(tmp_path / "run")).card.lineage[-1]["selected"]["epoch"] in {1, 2}
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())) == 2


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mix": "mean"}, CardError, "none of average, max, random"),
        ({"schedule": "adaptve"}, CardError, "Did you mean 'adaptive'"),
        ({"epochs": 0}, CardError, "at least 1"),
        ({"awp": 0.01, "accumulate": 2}, CardError, "accumulate=1"),
        ({"schedule": "adaptive", "holdout": 0}, CardError, "held-out"),
        ({"ema": 1.0}, CardError, "below 1"),
        ({"ema": float("nan")}, CardError, "below 1"),
        ({"lr": float("nan")}, CardError, "lr=nan: give a finite number above 0"),
        ({"lr": 0.0}, CardError, "lr=0.0: give a finite number above 0"),
        ({"weight_decay": float("inf")}, CardError, "weight_decay=inf: give a finite number of at least 0"),
        ({"awp": float("nan")}, CardError, "awp=nan: give a finite number of at least 0"),
    ],
)
def test_plans_that_mean_nothing_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        replace(PLAN, **change)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"threats": ("linf 8/255",)}, BudgetError, "is not a budget"),
        ({"threats": ()}, CardError, "needs something to train against"),
        ({"objective": "n-fgsm", "threats": (f"flicker @ {LINF}",)}, CardError, "finds its clips itself"),
        ({"threats": (f"universal @ {LINF}",)}, CardError, "cannot be trained against"),
        ({"objective": "free", "threats": (LINF, "l2 clip 1")}, CardError, "give one threat"),
    ],
)
def test_threats_that_cannot_be_trained_against_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        train(small_model(), Brightness(), replace(PLAN, **change))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from toys import Brightness, small_model
from training.test_loop import PLAN
from dataclasses import replace
from robustvid.training.loop import train
print("ready", flush=True)
train(small_model(), Brightness(), replace(PLAN, epochs=12), out={out!r}, save_every=0.0)
"""


def test_killed_at_random_steps_it_ends_with_the_same_weights(tmp_path):
    tests = str(Path(__file__).parents[1])

    def start(out):
        script = SCRIPT.format(tests=tests, out=str(out))
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        return process

    assert start(tmp_path / "whole").wait() == 0
    for wait in (0.35, 0.8, 0.15):
        process = start(tmp_path / "killed")
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    one, other = (rv.load_model(str(tmp_path / name)) for name in ("whole", "killed"))
    assert one.card.weights_digest == other.card.weights_digest


def test_whole_groups_are_held_out():
    class Scenes(Brightness):
        groups = tuple(f"scene {number // 4}" for number in range(36))

    split = hold_out(Scenes(), small_model().card.clip, 6, 0)
    assert len(split.held.labels) == 8
    assert {number // 4 for number in split.training} == {number // 4 for number in split.training if number % 4 == 0}
    assert len(split.training) == 28


def test_a_model_that_does_not_name_its_classes_learns_their_names():
    model = small_model()
    model.card = replace(model.card, classes=("0", "1"))
    assert train(model, Brightness(), replace(PLAN, epochs=1)).card.classes == Brightness.classes


def test_a_model_of_many_views_is_not_trained():
    model = small_model()
    model.card = replace(model.card, clip=replace(model.card.clip, views=3))
    with pytest.raises(ModelError, match="train it with one"):
        train(model, Brightness(), PLAN)


@pytest.fixture
def files(tmp_path):
    """Brightness as files of a folder, 36 of them, four of which are broken."""
    data = Brightness()
    for number in range(36):
        path = tmp_path / "videos" / Brightness.classes[number % 2] / f"{number:02d}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = data.sample(number, small_model().card.clip).frames
        write_video(path, frames, 12, "ffv1", pixel_format="bgr0")
    for broken in (3, 14, 20, 31):
        next((tmp_path / "videos").rglob(f"{broken:02d}.mkv")).write_text("no video")
    return FolderDataset(tmp_path / "videos", classes=Brightness.classes)


def test_a_video_that_cannot_be_read_stops_a_training_and_nothing_is_lost(files, tmp_path):
    plan = replace(PLAN, holdout=0, batch_size=2)
    before = []
    with pytest.raises(DecodeError, match=r"\.mkv"):
        train(small_model(), files, plan, out=tmp_path / "run", stop=lambda: before.append(1))
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == len(before) > 0
    trained = train(small_model(), files, plan, out=tmp_path / "run", on_error="skip")
    assert len(rv.load_model(str(tmp_path / "run")).card.lineage) == len(trained.card.lineage) == 1


def test_what_is_skipped_is_listed_and_a_stopped_training_goes_on_to_the_same_weights(files, tmp_path, caplog):
    whole = train(small_model(), files, PLAN, out=tmp_path / "whole", on_error="skip")
    listed = json.loads((tmp_path / "whole" / "left_out.json").read_text())
    assert {Path(line["file"]).name for line in listed} == {"03.mkv", "14.mkv", "20.mkv", "31.mkv"}
    assert whole.card.lineage[-1]["left_out"] == 4
    assert caplog.text.count("left out: cannot read") == 4
    steps = torch.load(tmp_path / "whole" / "state.pt", weights_only=True)["step"]
    for stop in (3, steps - 1):
        out = tmp_path / f"stopped-after-{stop}"
        with pytest.raises(TrainingStopped):
            train(small_model(), files, PLAN, out=out, on_error="skip", stop=After(stop))
        parts = train(small_model(), files, PLAN, out=out, on_error="skip")
        assert weights_digest(parts) == weights_digest(whole)
        assert json.loads((out / "left_out.json").read_text()) == listed
        assert parts.card.lineage[-1]["left_out"] == 4
