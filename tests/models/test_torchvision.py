"""torchvision's video classifiers: all nine keep the contract, and weights that do not fit are refused by name."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import robustvid as rv
from robustvid.errors import DataError, ModelError, UnknownNameError
from robustvid.models.checkpoint import load_checkpoint, save_checkpoint
from robustvid.models.torchvision import PROTOCOLS
from robustvid.testing import check_model

SMALL = dict.fromkeys(PROTOCOLS, "frames=4,size=32") | {
    "mvit_v1_b": "stride=2",
    "mvit_v2_s": "stride=2",
    "s3d": "frames=14",
}
QUICK = ("mc3_18", "r3d_18", "r2plus1d_18", "swin3d_t")


def load(name, options):
    torch.manual_seed(0)
    return rv.load_model(f"torchvision:{name}:weights=random,{options}")


def hold_to_contract(model):
    check_model(model)
    clip = model.card.clip
    clips = torch.rand(1, 3, clip.length, *clip.size, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    with torch.no_grad():
        labels = model(clips).argmax(1)
    budget = rv.Budget("linf", "1/255")
    adversarial = rv.load_attack("pgd:steps=1")(model, clips, labels, budget, torch.zeros(1, dtype=torch.int64))
    assert not torch.equal(adversarial, clips)
    assert float(budget.size(adversarial - clips)) <= 1
    with torch.no_grad():
        before, after = (cross_entropy(model(pixels), labels) for pixels in (clips, adversarial))
    assert float(after) > float(before)


def with_statistics(model):
    """Take BatchNorm's statistics from random clips: in an untrained S3D the input's share of the logits is 1e-7."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0
    clip = model.card.clip
    with torch.no_grad():
        model.train()(torch.rand(2, 3, clip.length, *clip.size))
    return model.eval()


@pytest.mark.parametrize("name", QUICK)
def test_models_keep_the_contract_and_are_attacked(name):
    hold_to_contract(load(name, SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_model_keeps_the_contract(name):
    hold_to_contract(with_statistics(load(name, SMALL[name])))


def test_protocols_classes_and_normalisation_are_those_of_the_weights():
    from torchvision.models import get_model_weights, list_models, video

    assert sorted(list_models(module=video)) == sorted(PROTOCOLS)
    model = rv.load_model("torchvision:r3d_18:weights=random")
    weights = get_model_weights("r3d_18").DEFAULT
    card = model.card
    assert (card.name, card.arch, len(card.classes), card.classes[6]) == ("r3d_18", "torchvision", 400, "arm wrestling")
    assert card.clip == rv.ClipSpec(16, 2, (112, 112), short_side=128)
    frames = torch.randint(0, 256, (4, 1, 1, 3), dtype=torch.uint8).expand(4, 128, 171, 3).contiguous()
    theirs = weights.transforms()(frames.permute(0, 3, 1, 2))
    ours = rv.data.transforms.to_clips([rv.data.transforms.resize_frames(frames, (112, 112), 128)])
    assert torch.allclose(((ours - model.mean) / model.std)[0], theirs, atol=1e-5)


def test_a_checkpoint_is_loaded_again_without_weights_of_torchvision(tmp_path):
    model = load("swin3d_t", "frames=4,size=32,num_classes=3")
    save_checkpoint(model, tmp_path / "kept")
    again = load_checkpoint(tmp_path / "kept")
    clips = torch.rand(2, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(clips), again(clips))
    assert again.card.clip == model.card.clip


def test_weights_of_ones_own_have_to_fit_as_a_whole(tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_bytes(b"1 ApplyEyeMakeup\r\n2 Archery\r\n")
    network = load("mc3_18", "frames=4,size=32,num_classes=2").network
    own = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": own, "epoch": 3}, tmp_path / "own.pt")
    name = f"torchvision:mc3_18:weights={tmp_path / 'own.pt'}"
    model = rv.load_model(name, classes=str(classes), views=2)
    assert model.card.classes == ("ApplyEyeMakeup", "Archery")
    assert model.card.clip.length == 32
    assert torch.equal(model.network.fc.weight, network.fc.weight)
    with pytest.raises(ModelError, match=r"fc.weight is \(2, 512\), wanted \(400, 512\)"):
        rv.load_model(name)
    own.pop("module.fc.bias")
    own["module.head.bias"] = torch.zeros(2)
    torch.save(own, tmp_path / "own.pt")
    with pytest.raises(ModelError, match=r"fc.bias is missing; head.bias is unexpected"):
        rv.load_model(name, num_classes=2)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_weights_that_run_code_or_are_none_are_refused(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    for file in ("evil.pt", "text.pt", "text.safetensors", "list.pt", "none.pt"):
        with pytest.raises(ModelError, match=file):
            rv.load_model(f"torchvision:mc3_18:weights={tmp_path / file}")
    assert "code ran" not in capsys.readouterr().out


def test_without_weights_on_this_machine_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"r3d_18-b3b3357e\.pth.*weights=download"):
        rv.load_model("torchvision:r3d_18")


def test_weights_left_by_a_download_are_found_and_get_another_head(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    network = load("mc3_18", "frames=4").network
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "mc3_18-a90a0ba3.pth")
    assert torch.equal(rv.load_model("torchvision:mc3_18").network.fc.weight, network.fc.weight)
    model = rv.load_model("torchvision:mc3_18:num_classes=7")
    assert model.network.fc.weight.shape == (7, 512)
    assert torch.equal(model.network.stem[0].weight, network.stem[0].weight)
    assert "fc.weight and fc.bias are not trained" in caplog.text


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("torchvision:r3d_81", UnknownNameError, "Did you mean 'r3d_18'"),
        ("torchvision:r3d_18:weights=random,num_classes=1", ModelError, "at least 2"),
        ("torchvision:r3d_18:weights=random,frames=0", ModelError, "whole number"),
        ("torchvision:r3d_18:weights=random,sampling=odd", ModelError, "dense or uniform"),
        ("torchvision:mvit_v2_s:weights=random,frames=8", ModelError, "16 frames of 224×224 pixels and no others"),
        ("torchvision:r3d_18:weights=random,fps=3", ModelError, "no option 'fps'"),
        ("torchvision:r3d_18:weights=random,crops=2", ModelError, "1 or 3 crops"),
        ("torchvision:r3d_18:weights=random,classes=none.txt", DataError, "none.txt"),
    ],
)
def test_mistakes_are_explained(name, error, told):
    with pytest.raises(error, match=told):
        rv.load_model(name)
