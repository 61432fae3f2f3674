"""Attacking again from the weights."""

import json

import pytest
from noise import BUDGETS, Noise, toy_model

import robustvid as rv
from robustvid.errors import LeaderboardError
from robustvid.leaderboard.checking import check_board, find_entry
from robustvid.leaderboard.entries import note_status, write_entry
from robustvid.leaderboard.verifying import Verdict, verify


def attack_again(board, tmp_path, model, data=None, name="toy", **options):
    return verify(find_entry(board, name), board, model, data or Noise(toy_model()), tmp_path / "again", **options)


def test_an_honest_entry_agrees(board, tmp_path):
    verdicts = attack_again(board, tmp_path, toy_model(), clips=10)
    assert [verdict.budget for verdict in verdicts] == ["clean", *(budget.describe() for budget in board.budgets)]
    assert all(verdict.agrees and verdict.n == 10 for verdict in verdicts)
    assert verdicts[0].differing == 0


def test_other_weights_are_refused(board, tmp_path):
    with pytest.raises(LeaderboardError, match="these weights are not those of toy"):
        attack_again(board, tmp_path, toy_model("toy-b", 1))


def test_other_data_are_refused(board, tmp_path):
    class Renamed(Noise):
        def sample(self, index, clip):
            return super().sample(index, clip)._replace(id=f"other{index}")

    with pytest.raises(LeaderboardError, match="noise is not the dataset of toy"):
        attack_again(board, tmp_path, toy_model(), Renamed(toy_model()))


def test_an_unsound_entry_is_not_attacked(board, tmp_path):
    path = board.folder / "toy" / "entry.json"
    facts = json.loads(path.read_text())
    facts["numbers"]["clean"] = 16
    path.write_text(json.dumps(facts))
    with pytest.raises(LeaderboardError, match="toy is not sound"):
        attack_again(board, tmp_path, toy_model())


def test_a_run_whose_attacks_did_nothing_is_sound_and_does_not_agree(board, tmp_path):
    """What no check of the evidence can find."""

    def nothing(model, clips, labels, budget, seeds, **params):
        return clips.clone()

    with pytest.MonkeyPatch.context() as patched:
        for module in ("fgsm", "mi_fgsm", "pgd"):
            patched.setattr(f"robustvid.attacks.{module}.{module}", nothing)
        battery = rv.load_battery("quick")
        lie = rv.evaluate(toy_model(), Noise(toy_model()), battery, BUDGETS, out=tmp_path / "lie")
    honest = rv.load_battery("quick").attacks
    for file in ("spec.json", "rows.jsonl"):
        text = (lie.folder / file).read_text()
        for false, true in zip(battery.attacks, honest, strict=True):
            text = text.replace(false.key, true.key)
        (lie.folder / file).write_text(text)
    write_entry(rv.Results(lie.folder), board, board.folder / "liar", {"by": "tests"})
    assert check_board(board) == {}
    verdicts = attack_again(board, tmp_path, toy_model(), name="liar", clips=16)
    assert [verdict.agrees for verdict in verdicts] == [True, False, False, False, False]


def test_agreement_is_the_interval():
    assert Verdict("clean", 40, 20, 26, 14.1, 25.9, 6).agrees is False
    assert Verdict("clean", 40, 20, 25, 14.1, 25.9, 5).agrees is True


def test_the_outcome_is_noted_and_stays_sound(board):
    entry = note_status(find_entry(board, "toy"), "reproduced", "tests", "16 clips attacked again with seed 1")
    assert entry.facts["history"][-1]["status"] == "reproduced"
    assert len(entry.facts["history"]) == 2
    assert check_board(board) == {}
    with pytest.raises(LeaderboardError, match="history is"):
        note_status(entry, "perfect", "tests", "")
