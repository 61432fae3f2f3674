"""The official layouts: labels from the official lists, groups on one side, and mistakes by name."""

import json
import logging
from pathlib import Path

import miniatures
import pytest

import robustvid as rv
from robustvid.data import hmdb51, ucf101
from robustvid.data.kinetics import kinetics400
from robustvid.errors import DataError, ModelError
from robustvid.testing import check_dataset

CLIP = rv.ClipSpec(4, 2, (32, 32))


@pytest.fixture(scope="module")
def ucf(tmp_path_factory):
    return miniatures.ucf101(tmp_path_factory.mktemp("ucf"))


def test_the_official_ucf101_lists():
    lists = Path(__file__).parents[2].parent / "shared" / "data" / "ucf101_splits"
    if not lists.is_dir():
        pytest.skip("the official lists (shared/data/ucf101_splits) are not on this machine")
    classes, splits = ucf101.read_splits(lists)
    assert (len(classes), len(splits["train"]), len(splits["test"])) == (101, 9537, 3783)
    assert not {video.group for video in splits["train"]} & {video.group for video in splits["test"]}
    assert [classes.index(name) for name in ("Hammering", "HammerThrow", "JumpingJack", "JumpRope")] == [34, 35, 46, 47]
    pushups = [video for video in splits["test"] if "HandStandPushups" in video.path]
    assert {classes[video.label] for video in pushups} == {"HandStandPushups"}
    assert pushups[0].path.startswith("HandstandPushups/")
    assert {video.label for split in splits.values() for video in split} == set(range(101))


def test_a_miniature_ucf101(ucf):
    train, test = (rv.load_data("ucf101", root=ucf, split=split) for split in ("train", "test"))
    assert train.classes == test.classes == miniatures.UCF_CLASSES
    assert (len(train), len(test)) == (20, 10)
    for data in (train, test):
        check_dataset(data, CLIP)
        assert [data.classes[label] for label in data.labels] == [id_.partition("/")[0] for id_ in data.ids]
    assert not set(train.groups) & set(test.groups)
    assert test.groups[0] == "Archery g01"
    assert rv.load_data("ucf101:fold=3", root=ucf).ids == test.ids


def test_sorted_folders_and_the_official_order_do_not_mix(ucf):
    folder = rv.load_data("folder", root=ucf / "UCF-101")
    assert folder.classes != rv.load_data("ucf101", root=ucf).classes
    names = ucf / "ucfTrainTestlist" / "classInd.txt"
    model = rv.load_model("torchvision:mc3_18:weights=random,frames=4,size=32", classes=names)
    with pytest.raises(ModelError, match="class 1 is 'Hammering' for the model and 'HammerThrow' for the data"):
        rv.evaluate(model, folder, "fgsm", [rv.Budget("linf", "1/255")])


def change(root, file, old, new):
    path = root / "ucfTrainTestlist" / file
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("classInd.txt", "2 Hammering", "7 Hammering", "without gaps"),
        ("trainlist01.txt", "_g08_c01.avi 1", "_g08_c01.avi 2", "has label 2, but classInd.txt gives Archery number 1"),
        ("trainlist01.txt", "v_Archery_g08_c01", "v_Archery_g01_c01", "scenes are in train and test, Archery g01"),
        ("testlist01.txt", "JumpRope/", "JumpRopes/", "wanted a line like"),
        ("testlist01.txt", "JumpRope/v", "../JumpRope/v", "leaves the folder"),
        ("testlist01.txt", "v_JumpRope_g01_c02", "v_JumpRope_g01_c09", "1 of 10 videos of ucf101 are missing"),
    ],
)
def test_lists_that_contradict_are_refused(tmp_path, file, old, new, told):
    miniatures.ucf101(tmp_path / "ucf", train=1)
    change(tmp_path / "ucf", file, old, new)
    with pytest.raises(DataError, match=told):
        rv.load_data("ucf101", root=tmp_path / "ucf")


def test_missing_videos_can_be_skipped(ucf, tmp_path, caplog):
    root = miniatures.ucf101(tmp_path / "ucf", train=1)
    (root / "UCF-101/Archery/v_Archery_g01_c01.avi").unlink()
    with pytest.raises(DataError, match=r"Archery_g01_c01\.avi; ucf101:missing=skip"):
        rv.load_data("ucf101", root=root)
    with caplog.at_level(logging.WARNING):
        assert len(rv.load_data("ucf101:missing=skip", root=root)) == 9
    assert "1 of 10 videos of ucf101 are missing" in caplog.text
    for name, split, told in (
        ("ucf101:missing=maybe", "test", "stop or skip"),
        ("ucf101:fold=4", "test", "no fold 4"),
        ("ucf101", "val", "no split 'val'"),
    ):
        with pytest.raises(DataError, match=told):
            rv.load_data(name, root=root, split=split)


def test_folders_renamed_to_their_classes_are_found(tmp_path):
    root = miniatures.ucf101(tmp_path, ("Archery", "HandStandPushups"), train=1)
    change(root, "testlist01.txt", "HandStandPushups/", "HandstandPushups/")
    assert rv.load_data("ucf101", root=root).ids[1] == "HandStandPushups/v_HandStandPushups_g01_c01"


def test_hmdb51_has_seventy_and_thirty_of_each(tmp_path):
    classes = [f"class_{number:02d}" for number in range(51)]
    root = miniatures.hmdb51(tmp_path, classes, 70, 30, 5, videos=False)
    for fold in (1, 2, 3):
        found, splits = hmdb51.read_splits(root / "testTrainMulti_7030_splits", fold)
        assert found == tuple(classes)
        assert (len(splits["train"]), len(splits["test"])) == (3570, 1530)
        for split, count in (("train", 70), ("test", 30)):
            labels = [video.label for video in splits[split]]
            assert all(labels.count(label) == count for label in range(51))


def test_a_miniature_hmdb51(tmp_path):
    root = miniatures.hmdb51(tmp_path)
    data = rv.load_data("hmdb51", root=root)
    assert (len(data), data.classes) == (6, ("brush_hair", "cartwheel", "catch"))
    assert data.ids[0] == "brush_hair/Film_(No.4)!_brush_hair_h_cm_np1_ba_goo_4"
    assert data.groups[0] == "brush_hair Film_(No.4)!_brush_hair"
    check_dataset(data, CLIP)
    lists = root / "testTrainMulti_7030_splits"
    for file in lists.glob("*"):
        file.rename(file.with_name(file.name.replace("split", "split_")))
    assert rv.load_data("hmdb51:fold=2", root=root).ids == data.ids
    (lists / "catch_test_split_1.txt").write_text("Film.avi 3\n")
    with pytest.raises(DataError, match=r"wanted NAME\.avi and 0, 1 or 2"):
        rv.load_data("hmdb51", root=root)
    with pytest.raises(DataError, match="there are no lists"):
        rv.load_data("hmdb51", root=root / "hmdb51_org")


def test_kinetics_reports_what_is_missing(tmp_path, caplog):
    root = miniatures.kinetics(tmp_path)
    data = rv.load_data("kinetics", root=root, split="val")
    assert data.classes == kinetics400()
    assert [data.classes[label] for label in data.labels] == ["arm wrestling", "yoga", "arm wrestling"]
    assert "1 of 4 videos of kinetics are missing" in caplog.text
    assert data.groups[0] == "-abc0_0"
    check_dataset(data, CLIP)
    for file in (root / "val").rglob("*.mp4"):
        file.rename(root / file.name)
    assert len(rv.load_data("kinetics", root=root, split="val")) == 3
    with pytest.raises(DataError, match=r"kinetics:missing=skip"):
        rv.load_data("kinetics:missing=stop", root=root, split="val")
    (root / "classes.txt").write_text("yoga\narm wrestling\n")
    assert rv.load_data("kinetics", root=root, split="val", classes=root / "classes.txt").labels.count(1) == 2
    text = (root / "val.csv").read_text()
    for old, new, told in (
        ("yoga,", "yogha,", "line 4: 'yogha' is not one of the 400 classes. Did you mean 'yoga'"),
        ("youtube_id", "id", "no list of Kinetics"),
        (",0,10", ",x,10", "no list of Kinetics"),
        ("-abc0_0", "../-abc0_0", "leaves the folder"),
    ):
        (root / "val.csv").write_text(text.replace(old, new))
        with pytest.raises(DataError, match=told):
            rv.load_data("kinetics", root=root, split="val")


def test_a_miniature_ssv2(tmp_path):
    root = miniatures.ssv2(tmp_path)
    data = rv.load_data("ssv2", root=root, split="validation")
    assert data.classes == ("Holding something", "Pushing something from left to right")
    assert (data.ids, data.labels) == (["0", "100", "1", "101"], [0, 1, 0, 1])
    check_dataset(data, CLIP)
    labels = root / "labels" / "labels.json"
    labels.write_text(json.dumps({"Holding something": "0", "Something else": "1"}))
    with pytest.raises(DataError, match=r"'Pushing something from left to right' of video 100 is not in labels\.json"):
        rv.load_data("ssv2", root=root, split="validation")
    labels.write_text(json.dumps({"Holding something": "0", "Something else": "2"}))
    with pytest.raises(DataError, match="a place from 0 on"):
        rv.load_data("ssv2", root=root, split="validation")
    with pytest.raises(DataError, match="no split 'test'"):
        rv.load_data("ssv2", root=root)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "kinetics", "ssv2"])
def test_a_root_is_needed_and_looked_into(name, tmp_path):
    with pytest.raises(DataError, match="needs root"):
        rv.load_data(name, split="train")
    with pytest.raises(DataError, match="there is no folder"):
        rv.load_data(name, root=tmp_path / "none", split="train")
    with pytest.raises(DataError, match="looked"):
        rv.load_data(name, root=tmp_path, split="train")
