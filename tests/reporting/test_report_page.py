"""The page of a run: one file, nothing fetched, nothing executed but its own script, pixels as they were."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustvid.evaluation import audit
from robustvid.reporting import flags, sprites
from robustvid.reporting.page import repeat_command, write_report

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Collects elements and text, and insists that tags close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def read(results):
    return Page(write_report(results).read_text(encoding="utf-8"))


def test_the_page_is_one_small_file_in_the_run_folder(results):
    path = write_report(results)
    assert path == results.folder / "report.html"
    assert path.stat().st_size < 5_000_000
    assert not (results.folder / ".report.html").exists()


def test_nothing_is_fetched(results):
    page = read(results)
    sources = [attrs.get("src") or attrs.get("href") or "" for _, attrs in page.elements]
    assert all(source.startswith(("data:", "#", "")) and "//" not in source[:30] for source in sources)
    assert not page.all("link")
    assert "url(" not in "".join(page.texts["style"])


def test_the_policy_allows_only_the_style_and_the_script_of_the_page(results):
    page = read(results)
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.texts[tag][-1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [attrs for _, attrs in page.elements if "style" in attrs or any(key.startswith("on") for key in attrs)]


def test_every_number_is_in_the_page_without_scripts(results):
    page = read(results)
    cells = {text.strip() for tag in ("td", "strong") for text in page.texts[tag]}
    for row in results.table().itertuples():
        assert f"{row.acc:.1f} %" in cells
        assert f"{row.lo:.1f} to {row.hi:.1f}" in cells
        assert f"{row.correct} of {row.n}" in cells


def test_marks_of_the_chart_say_their_numbers(results):
    titles = " ".join(read(results).texts["title"])
    for row in results.curve("linf-frame", "fgsm").itertuples():
        assert f"{row.correct} of {row.n} clips" in titles


def test_a_surface_is_drawn_as_cells(surface):
    page = read(surface)
    assert not page.all("polyline")
    assert len([text for text in page.texts["title"] if "frame" in text and "%" in text]) == 12


def test_hostile_names_stay_text(hostile):
    html = write_report(hostile).read_text(encoding="utf-8")
    page = Page(html)
    assert "<script>alert" not in html
    assert len(page.all("script")) == 2
    assert any("<script>alert('x')</script>" in text for text in page.texts["h1"])


def test_facts_for_the_player_cannot_close_their_element(results):
    page = read(results)
    facts, _ = page.texts["script"]
    assert "<" not in facts
    assert len(json.loads(facts)) == len([attrs for attrs in page.all("figure") if attrs.get("class") == "clip"])


def test_sheets_hold_the_stored_clips_pixel_by_pixel(results):
    page = read(results)
    stored = {(e.row["sample"], e.threat): e for e in results.clips()}
    shown = sprites.playable_clips(results)
    images = iter(page.all("img"))
    assert 0 < len(shown) == min(len(stored), sprites.MOST_CLIPS)
    for clip in shown:
        evidence = stored[clip["sample"], clip["threat"]]
        rounded = np.floor(evidence.adversarial.numpy() * 255 + np.float32(0.5)).astype(np.uint8)  # halves go up
        for expected in (evidence.clean.numpy(), rounded):
            assert np.array_equal(frames(next(images)["src"], clip), expected)


def frames(url, facts):
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    height, width, columns = facts["height"], facts["width"], facts["columns"]
    cut = [sheet[(t // columns) * height :, (t % columns) * width :][:height, :width] for t in range(facts["frames"])]
    return np.stack(cut).transpose(3, 0, 1, 2)


def test_the_strip_is_the_size_of_the_stored_perturbation(results):
    clip = sprites.playable_clips(results)[0]
    evidence = next(e for e in results.clips() if (e.row["sample"], e.threat) == (clip["sample"], clip["threat"]))
    delta = evidence.adversarial.numpy() - evidence.clean.numpy() / 255
    assert clip["rms"] == pytest.approx(255 * np.sqrt((delta**2).mean((0, 2, 3))), abs=1e-3)


def test_clips_that_would_be_too_large_lose_frames_not_pixels(results, monkeypatch):
    monkeypatch.setattr(sprites, "ONE_CLIP", 1200)
    (clip, *_) = sprites.playable_clips(results)
    assert clip["step"] > 1
    assert clip["frames"] == 4 // clip["step"]
    assert "frame 1 of every" in write_report(results).read_text(encoding="utf-8")


def test_a_full_page_takes_no_more_clips(results, monkeypatch):
    monkeypatch.setattr(sprites, "ALL_CLIPS", 5000)
    assert 0 < len(sprites.playable_clips(results)) < sprites.MOST_CLIPS


def test_the_command_repeats_the_run(results, other):
    assert repeat_command(results) == "robustvid attack toy"
    code = repeat_command(other)
    compile(code, "repeat", "exec")
    assert 'rv.Budget("l2", clip="0.05")' in code
    assert 'rv.load_model("toy-b")' in code
    assert "limit=16, seed=0" in code


def test_unfinished_runs_say_so(partial, unmeasured):
    assert "not complete" in write_report(partial).read_text(encoding="utf-8")
    Page(write_report(unmeasured).read_text(encoding="utf-8"))


def test_flags_are_explained(other):
    text = " ".join(" ".join(texts) for texts in read(other).texts.values())
    assert "no-better-than-chance" in text
    assert flags.meaning("no-better-than-chance") in text


def test_every_flag_of_the_audit_has_its_sentence():
    source = Path(audit.__file__).read_text(encoding="utf-8")
    raised = set(re.findall(r'Flag\(\s*"([a-z-]+)"', source))
    assert raised
    assert {name for name in raised if flags.meaning(name) == flags.meaning("unknown")} == set()
