"""The journal keeps every whole line and nothing else."""

import json
from dataclasses import asdict, replace

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from robustvid.errors import RunError
from robustvid.evaluation.journal import Journal, Row, pack, read_rows

ROW = Row(
    "a/ü", 0, "d", 1, "pgd", "k", "linf", "4/255", None, None, 1, 2, False, -0.5, 1.0, 0.01, 0.5, 0.2, 8, 3, 2, 0.1
)


def fill(path, count):
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        journal.append(replace(ROW, index=number) for number in range(count))
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000))
def test_a_torn_last_line_is_dropped_and_writing_goes_on(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    whole = fill(path, 3)
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = [row.index for row in read_rows(path)]
    assert kept == list(range(len(kept)))
    with Journal(path) as journal:
        journal.append([replace(ROW, index=9)])
    assert [row.index for row in read_rows(path)] == [*kept, 9]


def test_half_a_line_that_ends_in_a_newline_is_torn_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    whole = fill(path, 2)
    path.write_bytes(whole[:-40] + b"\n")
    assert [row.index for row in read_rows(path)] == [0]


def test_rows_survive_the_round_trip(tmp_path):
    path = tmp_path / "rows.jsonl"
    fill(path, 1)
    assert list(read_rows(path)) == [ROW]
    assert list(read_rows(tmp_path / "none.jsonl")) == []


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = fill(path, 3).splitlines()
    path.write_bytes(b"\n".join([lines[0], b'{"sample": 3}', lines[2], b""]))
    with pytest.raises(RunError, match="line 2"):
        list(read_rows(path))


def test_nan_never_enters_a_row(tmp_path):
    with Journal(tmp_path / "rows.jsonl") as journal, pytest.raises(ValueError, match="JSON"):
        journal.append([replace(ROW, margin=float("nan"))])
    assert list(read_rows(tmp_path / "rows.jsonl")) == []


def test_two_writers_at_once_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    with Journal(path), pytest.raises(RunError, match="another process"):
        Journal(path).__enter__()


def test_the_row_has_the_fields_of_the_contract():
    contract = (
        "sample label attack card_key norm eps_frame eps_clip frames clean predicted robust margin size linf l2_clip "
        "l2_frame_max frames_touched forwards backwards seconds"
    )
    assert set(contract.split()) <= set(json.loads(json.dumps(asdict(ROW))))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", [1]),
        ("index", True),
        ("forwards", "x"),
        ("seconds", float("inf")),
        ("linf", None),
        ("margin", float("nan")),
        ("robust", "no"),
        ("robust", 1),
    ],
)
def test_a_row_of_other_types_is_damage(tmp_path, field, value):
    path = tmp_path / "rows.jsonl"
    lines = fill(path, 2).splitlines()
    wrong = json.dumps(json.loads(lines[0]) | {field: value}).encode()
    path.write_bytes(b"\n".join([wrong, lines[1], b""]))
    with pytest.raises(RunError, match="line 1"):
        list(read_rows(path))


def test_parts_are_brought_together_in_the_order_of_the_clips(tmp_path):
    path = tmp_path / "rows.jsonl"
    fill(path, 1)
    with Journal(tmp_path / "rows.0.jsonl") as part:
        part.append([replace(ROW, index=4), replace(ROW, index=2), replace(ROW, index=4, margin=0.5)])
    with Journal(tmp_path / "rows.10.jsonl") as part:
        part.append([replace(ROW, index=3)])
    assert [row.index for row in read_rows(path)] == [0, 4, 2, 4, 3]
    with pytest.raises(RunError, match=r"rows\.0\.jsonl is not in rows\.jsonl yet"):
        pack(path, tmp_path / "rows.jsonl.gz")
    with Journal(path) as journal:
        journal.take_in([0, 3, 4, 2])
    assert [(row.index, row.margin) for row in read_rows(path)] == [
        (0, -0.5),
        (3, -0.5),
        (4, -0.5),
        (4, 0.5),
        (2, -0.5),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_bringing_parts_together_can_be_cut_off(tmp_path):
    """After the rows were written and before their parts were deleted, say."""
    path, part = tmp_path / "rows.jsonl", tmp_path / "rows.1.jsonl"
    with Journal(part) as journal:
        journal.append([replace(ROW, index=1), replace(ROW, index=2)])
    before = part.read_bytes()
    with Journal(path) as journal:
        journal.take_in([1, 2])
    whole = path.read_bytes()
    part.write_bytes(before)
    assert [row.index for row in read_rows(path)] == [1, 2]
    with Journal(path) as journal:
        journal.take_in([1, 2])
    assert path.read_bytes() == whole == before
    assert not part.exists()
