"""Lists of other tools: CSV, TSV, mmaction2's text, pytorchvideo's, and files of class names."""

import miniatures
import pytest
from PIL import Image

import robustvid as rv
from robustvid.classes import read_classes
from robustvid.data.frame_folder import image_files
from robustvid.errors import DataError, DecodeError

CLIP = rv.ClipSpec(4, 1, (16, 16))


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("a run.mp4", "b.mp4", "c.avi")):
        miniatures.video(tmp_path / "videos" / name, seed, frames=6, size=(16, 16))
    for number in range(6):
        path = tmp_path / "videos" / "frames" / f"img_{number + 1:05d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (10 * number,) * 3).save(path)
    return tmp_path


def load(root, name, text, **options):
    (root / name).write_text(text)
    return rv.load_data(str(root / name), root=root / "videos", **options)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\na run.mp4,run\nb.mp4,sit\n"),
        ("list.csv", "label,extra,path\nrun,x,a run.mp4\nsit,y,b.mp4\n"),
        ("list.tsv", "path\tlabel\na run.mp4\trun\nb.mp4\tsit\n"),
        ("list.csv", '"a run.mp4",run\nb.mp4,sit\n'),
        ("list.txt", "a run.mp4 run\r\nb.mp4 sit\r\n"),
        ("list.csv", "path,label,split\na run.mp4,run,test\nb.mp4,sit,test\nc.avi,run,train\n"),
    ],
)
def test_lists_with_names(root, name, text):
    data = load(root, name, text)
    assert (data.ids, data.labels, data.classes) == (["a run", "b"], [0, 1], ("run", "sit"))
    assert data.sample(1, CLIP).frames.shape == (4, 16, 16, 3)


def test_numbers_are_labels_and_classes_may_be_named(root):
    text = "a run.mp4 0\nb.mp4 2\n"
    assert load(root, "list.txt", text).classes == ("0", "1", "2")
    (root / "names.txt").write_text("run\nsit\nstand\n")
    (root / "list.txt").write_text(text)
    data = rv.load_data(f"{root / 'list.txt'}:classes={root / 'names.txt'}", root=root / "videos")
    assert (data.classes, data.labels) == (("run", "sit", "stand"), [0, 2])
    with pytest.raises(DataError, match="given twice"):
        rv.load_data(f"{root / 'list.txt'}:classes=x", classes="y")


def test_folders_of_frames_in_the_manner_of_mmaction2(root):
    data = load(root, "list.txt", "frames 6 1\nb.mp4 0\n")
    assert (data.ids, data.labels) == (["b", "frames"], [0, 1])
    assert data.frame_count(1) == 6
    assert data.sample(1, CLIP).frames[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    (root / "videos/frames/img_00002.png").write_bytes(b"no image")
    with pytest.raises(DecodeError, match=r"img_00002\.png cannot be read"):
        data.sample(1, CLIP)


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("f_2.jpg", "f_10.jpg", "f_1.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["f_1.jpg", "f_2.jpg", "f_10.jpg"]
    (tmp_path / "g_2.png").touch()
    with pytest.raises(DecodeError, match="the same frame"):
        image_files(tmp_path)
    (tmp_path / "cover.png").touch()
    with pytest.raises(DecodeError, match=r"cover\.png has no number"):
        image_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("list.csv", "", "is empty"),
        ("list.csv", "a run.mp4,run\nb.mp4,sit,3\n", "line 2"),
        ("list.txt", "a.mp4\n", "wanted PATH LABEL"),
        ("list.txt", "b.mp4 sit\n", "one label only"),
        ("list.txt", "b.mp4 sit\n../list.txt run\n", "leaves the folder"),
        ("list.txt", "b.mp4 sit\n/etc/passwd run\n", "leaves the folder"),
        ("list.txt", "b.mp4 sit\nnone.mp4 run\n", "1 of 2 videos of .*none.mp4"),
        ("list.txt", "b.mp4 sit\nb.mp4 run\n", "called b"),
        ("list.csv", "path,label,split\nb.mp4,x,train\nc.avi,y,train\n", "no videos in split 'test'"),
    ],
)
def test_bad_lists_are_explained(root, name, text, told):
    with pytest.raises(DataError, match=told):
        load(root, name, text)


def test_absolute_paths_below_the_root_will_do(root):
    data = load(root, "list.txt", f"{root / 'videos' / 'b.mp4'} 0\nc.avi 1\n")
    assert data.ids == ["b", "c"]
    with pytest.raises(DataError, match="no list"):
        rv.load_data("nowhere.csv")
    (root / "names.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="label 'x' is not one of the 2 classes"):
        load(root, "list.txt", "b.mp4 a\nc.avi x\n", classes=root / "names.txt")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb b\n", ("a", "b b")),
        ("1 a\r\n2 b\r\n", ("a", "b")),
        ("0 a\n1 b\n", ("a", "b")),
        ("10 pin\nx\n", ("10 pin", "x")),
    ],
)
def test_files_of_class_names(tmp_path, text, names):
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert read_classes(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("text", "told"), [("a\n", "1 class names"), ("a\na\n", "1 different"), ("1 a\n3 b\n", "gaps")]
)
def test_bad_files_of_class_names(tmp_path, text, told):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(DataError, match=told):
        read_classes(tmp_path / "names.txt")
    with pytest.raises(DataError, match="cannot read"):
        read_classes(tmp_path / "none.txt")


def test_folders_take_their_classes_from_a_file(root):
    (root / "tree/run").mkdir(parents=True)
    (root / "tree/sit").mkdir()
    (root / "videos/b.mp4").rename(root / "tree/run/b.mp4")
    (root / "videos/frames").rename(root / "tree/sit/frames")
    (root / "names.txt").write_text("sit\nrun\n")
    data = rv.load_data(f"folder:classes={root / 'names.txt'}", root=root / "tree")
    assert (data.ids, data.labels) == (["sit/frames", "run/b"], [0, 1])
