"""The wheel is the whole product: installed outside the checkout it finds its cards and weights."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import robustvid
from robustvid.leaderboard.boards import list_boards

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("uv, which builds the wheel, is not installed")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder, CHECKOUT], check=True)
    return uv, next(folder.glob("*.whl"))


def test_the_wheel_carries_cards_weights_templates_and_nothing_foreign(wheel):
    names = zipfile.ZipFile(wheel[1]).namelist()
    for wanted in (
        "robustvid/_shipped/attacks/quick.toml",
        "robustvid/_shipped/leaderboards/README.md",
        *(f"robustvid/_shipped/leaderboards/{board}/board.toml" for board in list_boards()),
        "robustvid/models/weights/conv3d/weights.safetensors",
        "robustvid/models/weights/frame_rnn/card.json",
        "robustvid/py.typed",
    ):
        assert wanted in names
    assert any(name.startswith("robustvid/reporting/templates/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/")) or name.endswith(".pyc")]
    assert not [name for name in names if name.endswith(("entry.json", ".gz"))]
    assert Path(wheel[1]).stat().st_size < 20e6


def test_the_installed_wheel_finds_its_cards(wheel, tmp_path):
    uv, file = wheel
    target = tmp_path / "site"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", target, file], check=True)
    code = (
        "import robustvid as rv, sys; assert rv.__file__.startswith(sys.argv[1]), rv.__file__;"
        "rv.load_battery('quick'); print(rv.load_model('conv3d').card.name)"
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    command = [sys.executable, "-c", code, str(target)]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stdout == "conv3d\n", result.stderr


@pytest.mark.slow
def test_the_wheel_attacks_from_an_empty_environment(wheel, tmp_path):
    """Needs the package index, or a warm cache of it."""
    uv, file = wheel
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = CHECKOUT / "constraints.txt"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-c", constraints, file], check=True)
    command = [python.with_name("robustvid"), "attack", "--clips", "20"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "linf-frame" in result.stdout
    assert list((tmp_path / "runs").glob("conv3d-motion10-*/report.html"))


def test_public_names_load_and_are_listed_once():
    assert sorted([*robustvid._HOMES, "live"]) == sorted(set(robustvid.__all__) - {"__version__"})
    for name in robustvid.__all__:
        assert getattr(robustvid, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = robustvid.nothing
