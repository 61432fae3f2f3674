"""What the page says, without a browser."""

import csv
import html
import io
import json
import re
import time
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from noise import protocol

from robustvid.leaderboard.boards import list_boards, load_board
from robustvid.leaderboard.checking import find_entry
from robustvid.leaderboard.entries import digests
from robustvid.leaderboard.page import write_page
from robustvid.leaderboard.ranking import places

MARKUP = "<script>alert('x')</script>&\"'"


def build(board, tmp_path):
    path, left_out = write_page([board], tmp_path / "site" / "index.html")
    return path.read_text(), left_out


def table(page, kind):
    return unquote(html.unescape(re.search(rf'href="data:{kind};charset=utf-8,([^"]*)"', page)[1]))


def test_downloads_hold_the_ranking(board, tmp_path):
    page, left_out = build(board, tmp_path)
    assert left_out == {}
    lines = list(csv.DictReader(io.StringIO(table(page, "text/csv"))))
    ranked = places(board, [find_entry(board, name) for name in ("toy", "toy-b", "toy-c")])
    assert [(line["id"], int(line["robust_correct"])) for line in lines] == [(p.entry.id, p.correct) for p in ranked]
    assert [row["id"] for row in json.loads(table(page, "application/json"))] == [line["id"] for line in lines]


def test_nothing_is_fetched_and_every_element_closes(board, tmp_path):
    page, _ = build(board, tmp_path)
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r'(src|href)="(?!#|data:image/webp;base64,|data:text/csv|data:application/json)', page)
    open_elements = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in {"meta", "input", "img", "br", "path", "rect", "circle", "polyline", "polygon"}:
                open_elements.append(tag)

        def handle_endtag(self, tag):
            if tag not in {"path", "rect", "circle", "polyline", "polygon"}:
                assert open_elements.pop() == tag

    Reader().feed(page)
    assert open_elements == []


def test_hostile_text_is_inert(board, tmp_path):
    folder = board.folder / "toy"
    facts = json.loads((folder / "entry.json").read_text())
    for name in ("title", "source", "training", "extra_data", "license", "bibtex", "by"):
        facts[name] = MARKUP
    facts["history"][0]["note"] = MARKUP
    spec = json.loads((folder / "spec.json").read_text())
    spec["model"]["arch"] = MARKUP
    (folder / "spec.json").write_text(json.dumps(spec))
    clips = json.loads((folder / "clips.json").read_text())
    clips[0].update(sample=MARKUP, attack=MARKUP)
    (folder / "clips.json").write_text(json.dumps(clips))
    environment = json.loads((folder / "environment.json").read_text()) | {
        "device": MARKUP,
        "versions": {MARKUP: MARKUP},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    facts["evidence"] = digests(folder)
    (folder / "entry.json").write_text(json.dumps(facts))
    page, left_out = build(board, tmp_path)
    assert left_out == {}
    assert "<script>alert" not in page
    assert page.count("<script") == 3
    assert "robustvid attack --board noise-linf --model &#39;&lt;script&gt;" in page  # quoted for the shell, too
    assert "'=" not in table(page, "text/csv")


def test_what_fails_the_check_is_left_out_by_name(board, tmp_path):
    (board.folder / "toy" / "rows.jsonl.gz").write_bytes(b"")
    page, left_out = build(board, tmp_path)
    assert left_out.keys() == {"noise-linf/toy"}
    assert 'data-id="toy"' not in page
    assert 'data-id="toy-b"' in page


def test_a_board_without_entries(root, runs, tmp_path):
    (root / "empty").mkdir()
    (root / "empty" / "board.toml").write_text(protocol(runs["toy"]))
    page, _ = build(load_board("empty", root), tmp_path)
    assert "No entries yet." in page


def test_spreadsheets_see_no_formula(board, tmp_path):
    path = board.folder / "toy" / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"title": "=HYPERLINK(1)"}))
    page, _ = build(board, tmp_path)
    assert any(line["title"] == "'=HYPERLINK(1)" for line in csv.DictReader(io.StringIO(table(page, "text/csv"))))


def test_two_hundred_entries_stay_small(many, tmp_path):
    begin = time.monotonic()
    path, left_out = write_page([many], tmp_path / "index.html")
    assert left_out == {}
    assert path.stat().st_size < 10_000_000
    assert path.read_text().count('class="entry"') == 200
    assert time.monotonic() - begin < 120


@pytest.mark.parametrize("name", list_boards())
def test_shipped_boards_are_shown(name, tmp_path):
    page, left_out = build(load_board(name), tmp_path)
    assert left_out == {}
    assert f'data-board="{name}"' in page
