"""Every number follows from its evidence, and what does not is named."""

import gzip
import json
import shutil

import pytest
from noise import protocol

import robustvid as rv
from robustvid.errors import LeaderboardError
from robustvid.evaluation.results import Results
from robustvid.leaderboard.boards import list_boards, load_board, write_board
from robustvid.leaderboard.checking import check_board, check_entry, find_entry
from robustvid.leaderboard.entries import digests, read_entry, write_entry


def rewrite(path, change):
    """Change a JSON file in place."""
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def reseal(folder):
    """Let the entry state the digests that its files now have, as a forger would."""
    rewrite(folder / "entry.json", lambda facts: facts.update(evidence=digests(folder)))


def change_rows(folder, change):
    path = folder / "rows.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(rows)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))
    reseal(folder)


def test_what_was_entered_is_sound(board):
    assert check_board(board) == {}


def test_numbers_are_those_of_the_run(board, runs):
    numbers = find_entry(board, "toy").facts["numbers"]
    results = runs["toy"]
    assert [cell["correct"] for cell in numbers["threats"][0]["budgets"]] == list(results.curve().correct)[1:]
    assert (numbers["n"], numbers["clean"]) == (16, results.clean["correct"])
    assert sum(line["n"] for line in numbers["classes"]) == 16
    assert sum(line["robust"] for line in numbers["classes"]) == numbers["headline"]["correct"]
    assert numbers["cost"] == results.cost


def test_an_entry_is_a_run_folder(board, runs):
    assert rv.Results(board.folder / "toy").curve().equals(runs["toy"].curve())


@pytest.mark.parametrize(
    "name",
    ["spec.json", "rows.jsonl.gz", "audit.jsonl.gz", "environment.json", "clips.json", "frames.json", "survival.json"],
)
def test_one_changed_byte_of_evidence_is_found(board, name):
    path = board.folder / "toy" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (fault,) = check_board(board)["toy"]
    assert fault.startswith(f"{name} was changed: its SHA-256 is ")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda numbers: numbers.update(clean=16), "clean says 16, the evidence gives"),
        (lambda numbers: numbers["headline"].update(correct=16), "headline.correct says 16, the evidence gives"),
        (
            lambda numbers: numbers["threats"][0]["budgets"][1].update(correct=15),
            "threats[0].budgets[1].correct says 15",
        ),
        (lambda numbers: numbers["cost"].update(forwards=1), "cost.forwards says 1, the evidence gives"),
        (lambda numbers: numbers.update(more=1), "more says 1, the evidence gives None"),
        (lambda numbers: numbers["classes"].pop(), "classes says [{"),
    ],
)
def test_one_changed_number_is_found(board, change, fault):
    rewrite(board.folder / "toy" / "entry.json", lambda facts: change(facts["numbers"]))
    (found,) = check_board(board)["toy"]
    assert found.startswith(fault)


def fall(rows):
    next(row for row in rows if row["attack"] != "clean" and not row["robust"])["robust"] = True


def stand(rows):
    next(row for row in rows if row["attack"] != "clean" and not row["robust"]).update(margin=1.0)


def outside(rows):
    next(row for row in rows if row["attack"] != "clean").update(size=1.5)


def negative(rows):
    rows[0]["forwards"] = -5.0


def nameless(rows):
    rows[0]["label"] = 99


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (fall, "yet robust is True"),
        (stand, "yet robust is False"),
        (outside, "1.5 times the size of the budget"),
        (negative, "a negative count or size"),
        (nameless, "a class that is none of the 4"),
        (lambda rows: rows.pop(), "the run is not complete"),
        (lambda rows: rows[3].update(digest="0" * 16), "measured on other clips than"),
    ],
)
def test_a_forged_journal_contradicts_itself(board, change, fault):
    change_rows(board.folder / "toy", change)
    assert any(fault in one for faults in check_board(board).values() for one in faults)


def test_the_page_may_tell_what_survives_as_the_run_does(board, runs):
    assert find_entry(board, "toy").results.survival == runs["toy"].survival
    assert runs["toy"].survival[0]["n"] > 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda told: told[0].update(n=1000), "counts of "),
        (lambda told: told[0]["treatments"][0].update(still=told[0]["n"] + 1), "counts of "),
        (lambda told: told[0]["treatments"][0].update(right=-1), "counts of "),
        (lambda told: told[0].update(threat="linf pixel"), "'linf pixel' is no threat of the run"),
        (lambda told: told.append(told[0] | {"treatments": []}), "other treatments for each threat"),
        (lambda told: told[0].pop("n"), "survival.json is damaged"),
    ],
)
def test_more_clips_cannot_survive_than_fell(board, change, fault):
    folder = board.folder / "toy"
    rewrite(folder / "survival.json", change)
    reseal(folder)
    assert any(fault in one for one in check_board(board)["toy"])


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("seed", 1, "seed is 0, the board wants 1"),
        ("clips", 8, "clips is 16, the board wants 8"),
        ("digest", "other", "digest is 'noise-v1', the board wants 'other'"),
        ("strategy", "every", "strategy is 'bisect', the board wants 'every'"),
        ("budgets", ["linf frame 2/255"], "budgets is ["),
    ],
)
def test_another_protocol_is_found(root, runs, field, value, fault):
    (root / "noise-linf" / "board.toml").write_text(protocol(runs["toy"], **{field: value}))
    board = load_board("noise-linf", root)
    assert any(one.startswith(fault) for one in check_board(board)["toy"])
    with pytest.raises(LeaderboardError, match="cannot be entered to noise-linf"):
        write_entry(runs["toy"], board, root / "new", {})


def test_a_changed_card_is_found(root, runs):
    keys = [attack["key"] for group in runs["toy"].spec["attacks"] for attack in group]
    (root / "noise-linf" / "board.toml").write_text(protocol(runs["toy"], keys=["0" * 16, *keys[1:]]))
    faults = check_board(load_board("noise-linf", root))
    assert faults["board.toml"] == ["the card fgsm is not the one of the protocol"]
    assert faults["toy"][0].startswith("keys is [")


def test_a_run_whose_spec_was_damaged_is_refused_in_words(root, runs, tmp_path):
    shutil.copytree(runs["toy"].folder, tmp_path / "run")
    rewrite(tmp_path / "run" / "spec.json", lambda spec: spec["attacks"][0][0].pop("function"))
    damaged = Results(tmp_path / "run")
    with pytest.raises(LeaderboardError, match="is damaged: KeyError"):
        write_board(damaged, root, "mine", headline="linf frame 2/255")
    with pytest.raises(LeaderboardError, match="is damaged: KeyError"):
        write_entry(damaged, load_board("noise-linf", root), root / "new", {})


def test_a_battery_that_is_not_there_leaves_the_board_out_and_says_so(root, runs):
    (root / "noise-linf" / "board.toml").write_text(protocol(runs["toy"], battery="quick@9"))
    faults = check_board(load_board("noise-linf", root))
    assert len(faults["board.toml"]) == 1
    assert faults["board.toml"][0].startswith("no battery named 'quick@9'. Did you mean 'quick'?")


def test_a_model_that_comes_with_robustvid_has_to_be_the_one_measured(board):
    rewrite(board.folder / "toy" / "entry.json", lambda facts: facts.update(source="frame_pool"))
    faults = check_board(board)["toy"]
    assert any(fault.startswith("model weights says") for fault in faults)
    assert any(fault.startswith("parameters is 3072, the model has") for fault in faults)


def test_files_that_are_no_evidence_are_found(board, tmp_path):
    (board.folder / "toy" / "run.py").write_text("")
    (board.folder / "toy-b" / "path.json").unlink()
    (tmp_path / "elsewhere").write_text("{}")
    (board.folder / "toy-b" / "path.json").symlink_to(tmp_path / "elsewhere")
    faults = check_board(board)
    assert faults["toy"] == ["run.py is no file of evidence"]
    assert "path.json is no file of evidence" in faults["toy-b"]


def test_a_run_of_no_clip_is_refused(board):
    folder = board.folder / "toy"
    rewrite(folder / "spec.json", lambda spec: spec["data"].update(clips=0))
    change_rows(folder, list.clear)
    rewrite(board.folder / "toy" / "entry.json", lambda facts: facts.update(evidence=digests(folder)))
    assert "the run is not complete" in check_board(board)["toy"]


def test_a_linked_folder_is_refused(board, tmp_path):
    (board.folder / "toy").rename(tmp_path / "toy")
    (board.folder / "toy").symlink_to(tmp_path / "toy")
    assert check_board(board)["toy"] == [f"{board.folder / 'toy'} is a link; an entry is a folder"]


def test_an_incomplete_run_cannot_be_entered(board, runs, tmp_path):
    shutil.copytree(runs["toy"].folder, tmp_path / "half")
    rows = (tmp_path / "half" / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "half" / "rows.jsonl").write_text("".join(rows[: len(rows) // 2]))
    with pytest.raises(LeaderboardError, match="the run is not complete"):
        write_entry(rv.Results(tmp_path / "half"), board, tmp_path / "toy-half", {})
    assert not (tmp_path / "toy-half").exists()


def test_an_evaluation_by_others_belongs_to_an_entry(board, runs):
    write_entry(runs["toy"], board, board.folder / "again", {"of": "toy"})
    write_entry(runs["toy"], board, board.folder / "other", {"of": "toy-b"})
    write_entry(runs["toy"], board, board.folder / "none", {"of": "nobody"})
    faults = check_board(board)
    assert faults.keys() == {"other", "none"}
    assert faults["other"] == ["it evaluates toy-b again, with other weights"]
    assert faults["none"] == ["it evaluates nobody again, which is no sound entry of this board"]


HOSTILE = {
    "nan": lambda facts: facts["numbers"].update(clean=float("nan")),
    "negative": lambda facts: facts.update(parameters=-1),
    "bool for a count": lambda facts: facts.update(parameters=True),
    "10 MB": lambda facts: facts.update(title="x" * 10_000_000),
    "long": lambda facts: facts.update(by="x" * 300),
    "script link": lambda facts: facts.update(code_url="javascript:alert(1)"),
    "plain link": lambda facts: facts.update(paper_url="http://example.org"),
    "quoted link": lambda facts: facts.update(code_url='https://a.b/"><script>alert(1)</script>'),
    "other id": lambda facts: facts.update(id="../../toy"),
    "climbing of": lambda facts: facts.update(of="../toy-b"),
    "status": lambda facts: facts["history"][0].update(status="perfect"),
    "evidence outside": lambda facts: facts["evidence"].update({"../../board.toml": "0" * 64}),
    "digest": lambda facts: facts.update(weights_sha256="0" * 63),
    "unknown field": lambda facts: facts.update(rank=1),
    "flags": lambda facts: facts["numbers"].update(flags="none"),
    "no history": lambda facts: facts.update(history=[]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_fields_are_refused(board, change):
    rewrite(board.folder / "toy" / "entry.json", change)
    with pytest.raises(LeaderboardError):
        read_entry(board.folder / "toy")
    (fault,) = check_board(board)["toy"]
    assert len(fault) < 1000


@pytest.mark.parametrize("content", ["", "[]", "nul", "[" * 100_000, '{"schema": 1}'], ids=len)
def test_what_is_no_entry_is_refused(board, content):
    (board.folder / "toy" / "entry.json").write_text(content)
    assert check_board(board).keys() == {"toy"}


SPECS = {
    "10 MB": lambda spec: spec["model"].update(name="x" * 10_000_000),
    "long": lambda spec: spec["model"].update(arch="x" * 5000),
    "no model": lambda spec: spec.pop("model"),
    "no data": lambda spec: spec.pop("data"),
    "list": lambda spec: spec.update(data=[]),
    "no keys": lambda spec: [attack.pop("key") for group in spec["attacks"] for attack in group],
    "no clip": lambda spec: spec["model"].pop("clip"),
    "no arch": lambda spec: spec["model"].pop("arch"),
    "arch of numbers": lambda spec: spec["model"].update(arch=[1, 2]),
    "classes of numbers": lambda spec: spec["model"].update(classes=[1, 2, 3, 4]),
    "no strategy": lambda spec: spec.pop("strategy"),
    "budgets": lambda spec: spec.update(budgets=[{"norm": "linf", "eps_frame": "1e999", "eps_clip": None}]),
    "no classes": lambda spec: spec["model"].update(classes=[]),
    "surrogate": lambda spec: spec.update(surrogate={"name": "another"}),
}


@pytest.mark.parametrize("change", SPECS.values(), ids=SPECS.keys())
def test_a_hostile_spec_is_refused(board, change):
    folder = board.folder / "toy"
    rewrite(folder / "spec.json", change)
    reseal(folder)
    assert check_board(board)["toy"]


CLIPS = {
    "script": lambda clips: clips[0].update(clean="javascript:alert(1)"),
    "svg": lambda clips: clips[0].update(clean="data:image/svg+xml;base64,PHN2Zy8+"),
    "no picture": lambda clips: clips[0].update(adversarial="data:image/webp;base64,AAAA"),
    "frames": lambda clips: clips[0].update(frames=-1),
    "no frames": lambda clips: clips[0].update(frames=0, rms=[], peaks=[]),
    "no width": lambda clips: clips[0].update(width=0),
    "no columns": lambda clips: clips[0].update(columns=0),
    "fewer peaks": lambda clips: clips[0].update(peaks=[1]),
    "rms": lambda clips: clips[0].update(rms=["a"]),
    "fewer": lambda clips: clips[0].update(rms=[0.5]),
    "more": lambda clips: clips[0].update(extra=1),
}


@pytest.mark.parametrize("change", CLIPS.values(), ids=CLIPS.keys())
def test_hostile_clips_are_refused(board, change):
    folder = board.folder / "toy"
    rewrite(folder / "clips.json", change)
    reseal(folder)
    assert check_board(board)["toy"]


FRAMES = {
    "list": [],
    "text": {"linf-frame": ["<b>"]},
    "negative": {"linf-frame": [[-1.0]]},
    "ragged": {"linf-frame": [[1.0], [1.0, 2.0]]},
    "empty": {"linf-frame": []},
}


@pytest.mark.parametrize("value", FRAMES.values(), ids=FRAMES.keys())
def test_hostile_frames_are_refused(board, value):
    folder = board.folder / "toy"
    (folder / "frames.json").write_text(json.dumps(value))
    reseal(folder)
    (fault,) = check_board(board)["toy"]
    assert "the perturbation of each frame" in fault


def test_the_perturbation_of_each_frame_is_that_of_the_kept_clips(board, runs):
    kept = list(runs["toy"].clips())
    profiles = find_entry(board, "toy").frames["linf-frame"]
    assert len(profiles) == len(kept) > 1
    for profile, clip in zip(profiles, kept, strict=True):
        delta = clip.adversarial - clip.clean.float() / 255
        wanted = [255 * float(delta[:, frame].pow(2).mean().sqrt()) for frame in range(delta.shape[1])]
        assert profile == pytest.approx(wanted, abs=1e-3)


def test_a_bomb_is_refused(board, monkeypatch):
    folder = board.folder / "toy"
    monkeypatch.setattr("robustvid.evaluation.journal._MOST_UNPACKED", 1 << 20)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(b"\0" * (1 << 22)))
    reseal(folder)
    (fault,) = check_board(board)["toy"]
    assert "holds more than 1 MiB" in fault


def test_a_folder_with_another_name_is_refused(board):
    (board.folder / "toy").rename(board.folder / "Toy <b>")
    assert "wanted small letters" in check_board(board)["Toy <b>"][0]


@pytest.mark.parametrize("name", list_boards())
def test_shipped_boards_are_sound(name):
    board = load_board(name)
    assert check_board(board) == {}


def test_alone_and_beside_others_agree(board):
    assert check_entry(find_entry(board, "toy"), board) == []
    with pytest.raises(LeaderboardError, match=r"no entry 'nobody' on noise-linf. There are: toy, toy-b, toy-c"):
        find_entry(board, "nobody")
