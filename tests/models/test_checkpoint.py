import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustvid.contracts import ClipSpec, ModelCard
from robustvid.errors import ModelError
from robustvid.models import load_model
from robustvid.models.checkpoint import load_checkpoint, save_checkpoint
from robustvid.models.classifier import VideoClassifier, new_classifier, weights_digest

CARD = ModelCard(
    "mine",
    "frame_rnn",
    ("left", "right"),
    ClipSpec(4, 2, (16, 20)),
    mean=(0.4, 0.5, 0.6),
    std=(0.1, 0.2, 0.3),
    options={"widths": [4, 6], "hidden": 5},
    lineage=({"step": "train", "seed": 3},),
)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return new_classifier(CARD)


@pytest.fixture
def folder(model, tmp_path):
    save_checkpoint(model, tmp_path / "deep" / "mine")
    return tmp_path / "deep" / "mine"


def edit(folder, **entries):
    card = json.loads((folder / "card.json").read_text()) | entries
    (folder / "card.json").write_text(json.dumps({name: value for name, value in card.items() if value != "DROP"}))


def refused(folder, *messages):
    with pytest.raises(ModelError) as caught:
        load_checkpoint(folder)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize("arch", ["conv3d", "frame_pool", "frame_rnn"])
def test_what_is_loaded_is_what_was_saved(arch, tmp_path):
    model = new_classifier(ModelCard("mine", arch, ("a", "b"), ClipSpec(4, 1, (16, 16))))
    model.train()(torch.rand(4, 3, 4, 16, 16))  # moves the BatchNorm statistics
    save_checkpoint(model, tmp_path)
    loaded, clips = load_checkpoint(tmp_path), torch.rand(2, 3, 4, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded(clips), model.eval()(clips))
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_the_card_comes_back(model, folder):
    loaded = load_checkpoint(str(folder))
    assert loaded.card.weights_digest == weights_digest(model) == weights_digest(loaded)
    assert loaded.card == ModelCard(**{**vars(CARD), "weights_digest": loaded.card.weights_digest})
    assert torch.equal(loaded.mean.flatten(), torch.tensor(CARD.mean))


def test_loading_draws_no_random_numbers(folder):
    state = torch.get_rng_state()
    load_checkpoint(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_saving_leaves_two_files_and_the_model_alone(model, folder):
    card = save_checkpoint(model, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["card.json", "weights.safetensors"]
    assert model.card.weights_digest == ""
    assert card.weights_digest == weights_digest(model)
    assert model.training


def test_saving_over_a_former_checkpoint(model, folder):
    with torch.no_grad():
        model.network.head.bias += 1
    save_checkpoint(model, folder)
    assert torch.equal(load_checkpoint(folder).network.head.bias, model.network.head.bias)


def test_a_crash_between_the_two_files_is_noticed(model, folder):
    with torch.no_grad():
        model.network.head.bias += 1
    save_checkpoint(model, folder.parent / "new")
    (folder.parent / "new" / "weights.safetensors").replace(folder / "weights.safetensors")
    refused(folder, weights_digest(model), "SHA-256")


def test_changed_weights_are_refused(folder):
    weights, digest = load_file(folder / "weights.safetensors"), load_checkpoint(folder).card.weights_digest
    weights["network.head.bias"][0] += 1e-6
    save_file(weights, folder / "weights.safetensors")
    changed = new_classifier(CARD)
    changed.load_state_dict(weights)
    refused(folder, digest, weights_digest(changed), "weights.safetensors")


def test_every_tensor_that_does_not_fit_is_named(folder):
    weights = load_file(folder / "weights.safetensors")
    del weights["network.rnn.weight_hh_l0"]
    weights["network.extra"] = torch.zeros(1)
    weights["network.head.bias"] = torch.zeros(3)
    weights["network.head.weight"] = weights["network.head.weight"].half()
    save_file(weights, folder / "weights.safetensors")
    refused(
        folder,
        "network.rnn.weight_hh_l0 is missing",
        "network.extra is unexpected",
        "network.head.bias is torch.float32 (3,), wanted torch.float32 (2,)",
        "network.head.weight is torch.float16 (2, 5), wanted torch.float32 (2, 5)",
    )


def test_torn_and_foreign_weights(folder):
    file = folder / "weights.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-10], whole[:4], b"", b"\x80\x04not a pickle either"):
        file.write_bytes(content)
        refused(folder, "weights.safetensors is not a whole safetensors file")


def test_missing_files(folder, tmp_path):
    refused(tmp_path / "nowhere", "no folder", "nowhere")
    (folder / "weights.safetensors").unlink()
    refused(folder, "has no weights.safetensors")
    (folder / "card.json").unlink()
    refused(folder, "has no card.json")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"arch": "DROP"}, "'arch' is missing"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"cilp": {}}, "Did you mean 'clip'?"),
        ({"arch": "frame_rn"}, "Did you mean 'frame_rnn'?"),
        ({"arch": "os:system"}, "no architecture named 'os:system'"),
        ({"arch": 3}, "'arch' is 3, wanted the name of an architecture"),
        ({"name": ""}, "'name' is \"\", wanted text"),
        ({"classes": ["left"]}, "wanted a list of two or more different class names"),
        ({"classes": ["left", "left"]}, "wanted a list of two or more different class names"),
        ({"classes": "left"}, "wanted a list of two or more different class names"),
        ({"classes": ["left", "right", "up"]}, "network.head.bias is torch.float32 (2,), wanted torch.float32 (3,)"),
        ({"mean": [0.1, 0.2]}, "'mean' is [0.1, 0.2], wanted three numbers"),
        ({"mean": [10**400, 0, 0]}, "wanted three numbers"),
        ({"clip": {"frames": 8, "stride": 1, "size": [64, 10**400]}}, "wanted height and width in pixels"),
        ({"mean": [0.1, 0.2, True]}, "wanted three numbers"),
        ({"mean": [0.1, 0.2, float("nan")]}, "wanted three numbers"),
        ({"std": [0.1, 0, 0.2]}, "wanted three positive numbers"),
        ({"clip": [8, 2]}, "'clip' is [8, 2], wanted an object with frames, stride and size"),
        ({"clip": {"frames": 8, "stride": 2}}, "'size' is missing"),
        ({"clip": {"frames": 8.5, "stride": 0, "size": [64, 64]}}, "'frames' is 8.5"),
        ({"clip": {"frames": 8, "stride": 2, "size": 64}}, "'size' is 64, wanted height and width"),
        ({"options": ["gru"]}, "'options' is [\"gru\"], wanted an object"),
        ({"options": {"cells": "gru"}}, "unexpected keyword argument 'cells'; its signature is (classes: "),
        ({"options": {"cell": "gro"}}, "Did you mean 'gru'?"),
        ({"options": {"hidden": "many"}}, "architecture frame_rnn refuses options {'hidden': 'many'}"),
        ({"options": {"hidden": -1}}, "architecture frame_rnn refuses options {'hidden': -1}"),
        ({"options": {"widths": []}}, "architecture frame_rnn refuses options {'widths': []}"),
        ({"weights_digest": ""}, "wanted 64 hexadecimal digits"),
        ({"weights_digest": "0" * 64}, "0" * 64),
        ({"lineage": {"step": "train"}}, "wanted a list of objects"),
    ],
)
def test_malformed_cards(folder, entries, message):
    edit(folder, **entries)
    refused(folder, message, str(folder))


def test_all_faults_of_a_card_are_named_at_once(folder):
    edit(folder, std=None, arch="DROP", more=1)
    refused(folder, "'std' is null", "'arch' is missing", "unknown field 'more'")


@pytest.mark.parametrize("text", ["", "{", "\0", '{"name": ' + "[" * 100_000])
def test_cards_that_are_not_json(folder, text):
    (folder / "card.json").write_text(text)
    refused(folder, "card.json is not JSON")


def test_a_card_that_is_a_list(folder):
    (folder / "card.json").write_text("[]")
    refused(folder, "card.json holds list; wanted an object with name, arch")


def test_what_could_not_be_loaded_is_not_saved(model, tmp_path):
    network = model.network
    for fields, message in (
        ({"arch": "mine:build"}, "could not be loaded again"),
        ({"options": {"widths": {1, 2}}}, "cannot be written as JSON"),
        ({"lineage": ({"loss": float("nan")},)}, "cannot be written as JSON"),
        ({"std": (1.0, 0.0, 1.0)}, "wanted three positive numbers"),
    ):
        with pytest.raises(ModelError, match=message):
            save_checkpoint(VideoClassifier(network, ModelCard(**{**vars(CARD), **fields})), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_folder_is_a_model(model, folder):
    clips = torch.rand(1, 3, 4, 16, 20)
    assert torch.equal(load_model(folder)(clips), model.eval()(clips))
    with pytest.raises(ModelError, match="takes classes and num_classes, but got hidden"):
        load_model(str(folder), hidden=3)
