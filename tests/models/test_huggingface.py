"""Hugging Face video classifiers from a folder: four families, small and random, and what does not fit."""

import json

import pytest
import torch
from test_torchvision import hold_to_contract

import robustvid as rv
from robustvid.errors import ModelError
from robustvid.models.checkpoint import load_checkpoint, save_checkpoint

transformers = pytest.importorskip("transformers", reason="Hugging Face models need transformers")

_COMMON = {"num_frames": 8, "image_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 64}  # fmt: skip
CONFIGS = {
    "videomae": _COMMON,
    "timesformer": _COMMON,
    "vivit": _COMMON | {"tubelet_size": [2, 16, 16]},
    "vjepa2": {"frames_per_clip": 8, "crop_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "mlp_ratio": 2,
               "num_attention_heads": 2, "pred_hidden_size": 32, "pred_num_attention_heads": 2,
               "pred_num_hidden_layers": 2, "num_pooler_layers": 1},
}  # fmt: skip
PROCESSOR = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "size": {"shortest_edge": 40}}
LABELS = ("archery", "bowling", "yoga")


def make(family, folder, labels=LABELS, processor=PROCESSOR):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **CONFIGS[family], num_labels=len(labels))
    config.id2label = dict(enumerate(labels))
    model = transformers.AutoModelForVideoClassification.from_config(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_keeps_the_contract_and_is_attacked(family, tmp_path):
    theirs = make(family, tmp_path / "model")
    model = rv.load_model(f"hf:{tmp_path / 'model'}")
    assert model.card.classes == LABELS
    assert (model.card.clip.frames, model.card.clip.size, model.card.clip.short_side) == (8, (32, 32), 40)
    clips = torch.rand(2, 3, 8, 32, 32)
    mean, std = (torch.tensor(PROCESSOR[key]).view(3, 1, 1, 1) for key in ("image_mean", "image_std"))
    pixels = ((clips - mean) / std).transpose(1, 2)
    with torch.no_grad():
        expected = theirs(**{"pixel_values_videos" if family == "vjepa2" else "pixel_values": pixels}).logits
        assert torch.allclose(model(clips), expected, atol=1e-5)
    hold_to_contract(model)


def test_a_checkpoint_is_loaded_again_without_the_folder(tmp_path):
    make("videomae", tmp_path / "model")
    model = rv.load_model(f"hf:{tmp_path / 'model'}:stride=2")
    save_checkpoint(model, tmp_path / "kept")
    again = load_checkpoint(tmp_path / "kept")
    clips = torch.rand(2, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(clips), again(clips))
    assert again.card.clip.stride == 2


@pytest.mark.parametrize("processor", [
    {"do_rescale": True, "rescale_factor": 1 / 127.5, "offset": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    {"do_rescale": True, "rescale_factor": 1 / 127.5, "offset": True, "do_normalize": False},
    {"image_mean": [0.45] * 3, "image_std": [0.225] * 3},
])  # fmt: skip
def test_normalisation_is_what_the_processor_does(processor, tmp_path):
    make("vivit", tmp_path / "model", processor=processor)
    model = rv.load_model(f"hf:{tmp_path / 'model'}")
    pixels = torch.arange(256.0)
    shift = 1 if processor.get("offset") else 0
    theirs = pixels * processor.get("rescale_factor", 1 / 255) - shift
    if processor.get("do_normalize", True):
        theirs = (theirs - processor["image_mean"][0]) / processor["image_std"][0]
    assert torch.allclose((pixels / 255 - model.mean[0, 0, 0, 0]) / model.std[0, 0, 0, 0], theirs, atol=1e-5)


def test_another_head_and_ones_own_weights(tmp_path, caplog):
    make("videomae", tmp_path / "model")
    model = rv.load_model(f"hf:{tmp_path / 'model'}:num_classes=5")
    assert model.card.classes == ("0", "1", "2", "3", "4")
    assert "classifier.bias and classifier.weight are not trained" in caplog.text
    torch.save(model.network.state_dict(), tmp_path / "own.pt")
    own = rv.load_model(f"hf:{tmp_path / 'model'}", weights=str(tmp_path / "own.pt"), num_classes=5)
    assert torch.equal(own.network.model.classifier.weight, model.network.model.classifier.weight)
    with pytest.raises(ModelError, match=r"classifier.weight is \(5, 32\), wanted \(3, 32\)"):
        rv.load_model(f"hf:{tmp_path / 'model'}", weights=str(tmp_path / "own.pt"))
    make("vivit", tmp_path / "fixed")
    with pytest.raises(ModelError, match=r"do not fit the model: vivit.embeddings.position_embeddings is"):
        rv.load_model(f"hf:{tmp_path / 'fixed'}:size=64")


def test_placeholders_are_no_names(tmp_path):
    make("videomae", tmp_path / "model", ("LABEL_0", "LABEL_1"))
    assert rv.load_model(f"hf:{tmp_path / 'model'}").card.classes == ("0", "1")


def test_what_is_no_model_is_explained(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.create_connection", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(ModelError, match="download=true"):
        rv.load_model("hf:some-people/some-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        rv.load_model(f"hf:{tmp_path / 'empty'}")
    make("videomae", tmp_path / "model")
    (tmp_path / "model/preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    with pytest.raises(ModelError, match="does not say how clips are normalised"):
        rv.load_model(f"hf:{tmp_path / 'model'}")
    (tmp_path / "model/preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        rv.load_model(f"hf:{tmp_path / 'model'}")
    (tmp_path / "model/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="'bert'; robustvid knows videomae"):
        rv.load_model(f"hf:{tmp_path / 'model'}")
