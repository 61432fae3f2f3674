"""Real files through the whole: attacked, the adversarial clip written as a video, read again, still adversarial."""

import json

import pytest
import torch
from click.testing import CliRunner

import robustvid as rv
from robustvid.cli import main
from robustvid.data.decode import read_frames, write_video
from robustvid.data.transforms import from_clips, to_clips
from robustvid.evaluation.results import Results

FILES = {"kinetics_arm_wrestling.mp4": "arm wrestling", "ucf101_v_ApplyEyeMakeup_g01_c01.avi": "applying cream"}


@pytest.fixture
def listed(real_videos, tmp_path):
    """A list of the two files under the labels that an untrained mc3_18 gives them."""
    torch.manual_seed(0)
    network = rv.load_model("torchvision:mc3_18:weights=random,frames=8,size=32").network
    torch.save(network.state_dict(), tmp_path / "mc3_18.pt")
    name = f"torchvision:mc3_18:weights={tmp_path / 'mc3_18.pt'},frames=8,size=32"
    model = rv.load_model(name)
    (tmp_path / "classes.txt").write_text("\n".join(model.card.classes))
    file = tmp_path / "list.csv"
    file.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in FILES.items()))
    data = rv.load_data(f"{file}:classes={tmp_path / 'classes.txt'}", root=real_videos)
    with torch.no_grad():
        found = model(to_clips([data.sample(index, model.card.clip).frames for index in range(2)])).argmax(1)
    answers = {data.ids[index]: model.card.classes[int(label)] for index, label in enumerate(found)}
    file.write_text("path,label\n" + "".join(f"{path},{answers[path.rpartition('.')[0]]}\n" for path in FILES))
    return name, f"{file}:classes={tmp_path / 'classes.txt'}", real_videos


def test_real_files_are_attacked_and_stay_adversarial_on_the_disk(listed, tmp_path):
    name, data, root = listed
    arguments = [
        "attack",
        "--model",
        name,
        "--data",
        data,
        "--root",
        str(root),
        "-a",
        "pgd:steps=10",
        "--eps-frame",
        "8/255",
    ]
    result = CliRunner().invoke(main, [*arguments, "--clips", "all", "--mlflow", "off", "--out", "run", "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["n"], summary["clean"]["correct"]) == (2, 2)
    assert summary["curves"][-1]["points"][-1]["correct"] == 0
    model = rv.load_model(name)
    kept = list(Results(tmp_path / "run").clips())
    assert len(kept) == 2
    for evidence in kept:
        adversarial = from_clips(evidence.adversarial[None])
        write_video("adversarial.mkv", adversarial[0], 25, "ffv1", pixel_format="bgr0")
        again = read_frames("adversarial.mkv", range(8))
        assert torch.equal(again, adversarial[0])
        clean = evidence.clean.permute(1, 2, 3, 0)
        assert int((again.int() - clean.int()).abs().max()) <= 8
        with torch.no_grad():
            before, after = model(to_clips([clean])).argmax(1), model(to_clips([again])).argmax(1)
        assert before != after
