"""``robustvid bench`` tells times that make sense."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from test_commands import MINE

from robustvid.cli import main


@pytest.fixture(autouse=True)
def _mine():
    Path("mine.py").write_text(MINE)


def run(*arguments):
    result = CliRunner().invoke(main, ["bench", "-m", "mine.py:model", "-d", "mine.py:videos", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_times_what_a_sweep_is_made_of():
    threads = torch.get_num_threads()
    found = json.loads(run("--json"))
    assert torch.get_num_threads() == threads
    for way in ("given", "fast", "bf16"):
        assert 0 < found[way]["forward_ms"] < 2 * found[way]["pass_ms"]
    assert found["path"]["path"] == "folded, channels last"
    assert 0.3 < found["loop"] < 30
    words = run()
    assert "forward and backward" in words
    assert "--precision bf16" in words
    assert "folded, channels last, logits differ by" in words
