"""Embeddings: what enters the last layer, kept bit for bit, and the nearest of them."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from toys import Brightness, small_model

import robustvid as rv
from robustvid.cli import main
from robustvid.data.decode import write_video
from robustvid.errors import DataError, ModelError
from robustvid.evaluation import retrieval
from robustvid.evaluation.retrieval import (
    Embeddings,
    embed_dataset,
    nearest,
    read_embeddings,
    same_class,
    write_embeddings,
)
from robustvid.models.features import embed

CLIPS = torch.rand(3, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["conv3d", "frame_rnn", "frame_pool"])
def test_the_last_layer_makes_logits_of_embeddings(name):
    model = rv.load_model(name)
    with torch.no_grad():
        torch.testing.assert_close(model.network.head(embed(model, CLIPS)), model(CLIPS))


def test_embeddings_of_views_are_averaged():
    model, two = rv.load_model("conv3d"), rv.load_model("conv3d", views=2)
    both = embed(two, torch.cat([CLIPS, CLIPS.flip(2)], dim=2))
    torch.testing.assert_close(both, (embed(model, CLIPS) + embed(model, CLIPS.flip(2))) / 2)


def test_a_last_layer_that_is_a_convolution_is_averaged_over_its_places():
    model = rv.load_model("torchvision:s3d:weights=random,frames=16,num_classes=3")
    with rv.frozen(model), torch.no_grad():
        clips = torch.rand(2, 3, 16, 224, 224)
        found, head = embed(model, clips), model.network.classifier[1]
        torch.testing.assert_close(found @ head.weight.flatten(1).T + head.bias, model(clips), rtol=1e-4, atol=1e-4)


def test_what_has_no_last_layer_is_refused(tiny_model):
    tiny_model.network = torch.nn.Identity()
    with pytest.raises(ModelError, match="no linear or convolutional layer with 4 outputs"):
        embed(tiny_model, CLIPS)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embeddings_come_back_bit_for_bit(tmp_path, suffix):
    found = embed_dataset(small_model(), Brightness(), 10)
    write_embeddings(found, tmp_path / f"found{suffix}")
    again = read_embeddings(tmp_path / f"found{suffix}")
    assert (again.about, again.ids) == (found.about, found.ids)
    assert torch.equal(again.vectors, found.vectors)
    assert torch.equal(again.labels, found.labels)
    assert [path.name for path in tmp_path.iterdir()] == [f"found{suffix}"]


def test_nearest_is_by_angle():
    vectors = torch.tensor([[1.0, 0], [9.0, 1], [0, 2], [-1, 0]])
    found = Embeddings({"classes": ["a", "b"]}, list("wxyz"), torch.tensor([0, 0, 1, 1]), vectors)
    values, places = nearest(found, torch.tensor([[5.0, 0.1]]), k=3)
    assert places.tolist() == [[0, 1, 2]]
    assert values[0].tolist() == pytest.approx([0.9998, 0.9959, 0.02], abs=1e-3)
    assert same_class(found, 1) == (0.75, 0.75)  # w and x find each other, y finds x, z finds y
    assert nearest(found, vectors, k=9)[1].shape == (4, 4)
    with pytest.raises(DataError, match="3 numbers"):
        nearest(found, torch.zeros(1, 3))


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_file_of_something_else_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    if content is None:
        np.savez(tmp_path / "bad.npz", ids=np.array(["a"]))
        (tmp_path / "bad.npz").rename(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="holds no embeddings"):
        read_embeddings(path)


def test_a_damaged_name_is_refused(tmp_path):
    path = tmp_path / "f.parquet"
    found = Embeddings({"classes": ["a"]}, ["a clip of some name"], torch.tensor([0]), torch.ones(1, 2))
    write_embeddings(found, path)
    path.write_bytes(path.read_bytes().replace(b"a clip of", b"a cl\xffp of"))
    with pytest.raises(DataError, match="holds no embeddings"):
        read_embeddings(path)


def test_parquet_without_pyarrow_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"give \.npz"):
        read_embeddings(tmp_path / "f.parquet")


@pytest.mark.usefixtures("small_home")
def test_the_command_finds_the_clip_it_is_asked_for(tmp_path):
    data = rv.load_data("motion10")
    write_video(tmp_path / "query.mp4", data.read(3, range(24)), 12, crf=0)
    runner = CliRunner()
    for words in (["--out", "f.parquet"], ["--out", "f.parquet", "--query", "query.mp4", "-k", "2", "--json"]):
        result = runner.invoke(main, ["features", *words])
        assert result.exit_code == 0, result.output
    (answer,) = json.loads(result.stdout)["queries"]
    assert answer["nearest"][0] == {
        "id": data.ids[3],
        "class": data.classes[data.labels[3]],
        "similarity": pytest.approx(1, abs=1e-2),
    }
    for words, message in (
        (["--out", "f.parquet", "--clips", "4"], "of another model or of other clips"),
        (["--out", "f.csv"], ".npz or .parquet"),
        (["--out", "f.parquet", "--query", "no.mp4"], "no such file"),
    ):
        result = runner.invoke(main, ["features", *words])
        assert result.exit_code == 2
        assert message in result.stderr
