"""``art:NAME``: the evasion attacks of the Adversarial Robustness Toolbox as second opinions on video."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustvid.attacks.layouts import CLIP, FILM, SHEET
from robustvid.attacks.peers import BOTH, Library, Shown, Usable
from robustvid.errors import CardError

_NORMS = {"linf": np.inf, "l2": 2}
_INNER = ("FastGradientMethod", "ProjectedGradientDescent")

_PGD = Usable(BOTH, framewise=True, separable=True)
USABLE = {
    "AutoConjugateGradient": Usable(BOTH),
    "AutoProjectedGradientDescent": Usable(BOTH),
    "BasicIterativeMethod": Usable(separable=True),
    "BoundaryAttack": Usable(BOTH, bounded=False),
    "CarliniL0Method": Usable(BOTH, bounded=False),
    "CarliniL2Method": Usable(BOTH, bounded=False),
    "CarliniLInfMethod": Usable(BOTH, bounded=False),
    "DeepFool": Usable(BOTH, bounded=False),
    "ElasticNet": Usable(BOTH, bounded=False),
    "FastGradientMethod": _PGD,
    "FrameSaliencyAttack": Usable(BOTH, CLIP, extra={"attacker": "ProjectedGradientDescent", "max_iter": 100}),
    "HopSkipJump": Usable(BOTH, bounded=False),
    "MomentumIterativeMethod": _PGD,
    "NewtonFool": Usable(BOTH, bounded=False),
    "OverTheAirFlickeringPyTorch": Usable(BOTH, FILM, bounded=False),
    # The other evolution strategy, es=0, needs a package more; th=None would search through 127 numbers of pixels.
    "PixelAttack": Usable(BOTH, bounded=False, defaults={"th": 1, "es": 1}),
    "ProjectedGradientDescent": _PGD,
    "ProjectedGradientDescentNumpy": _PGD,
    "ProjectedGradientDescentPyTorch": _PGD,
    "RescalingAutoConjugateGradient": Usable(BOTH),
    "ShadowAttack": Usable(BOTH, bounded=False),
    "SignOPTAttack": Usable(BOTH, bounded=False),
    "SimBA": Usable(BOTH, SHEET, bounded=False, probabilities=True),
    "SquareAttack": Usable(BOTH, SHEET),
    "ZooAttack": Usable(BOTH, SHEET, bounded=False, defaults={"use_resize": False}),
}

_PATCH = "it paints a patch of any size of change; use the cards `patch` and `border`"
_DETECTOR = "it attacks object detectors or trackers, not classifiers"
_SPEECH = "it attacks speech recognisers"
_TENSORFLOW = "it needs a TensorFlow model"
_GUIDE = "it pulls features towards those of a second clip, which an attack is not given"
_ROADSIGN = "it makes physical stickers for one image, under its own transformations; use the card `patch`"
_LASER = "it paints laser beams on single images, of any size of change"
_UNIVERSAL = "it looks for one perturbation of many clips, and would mix the clips of a batch; use the card `universal`"
_BASE = "it is the base class of other attacks"
REFUSED = {
    "AdversarialPatch": _PATCH,
    "AdversarialPatchNumpy": _PATCH,
    "AdversarialPatchPyTorch": _PATCH,
    "AdversarialPatchTensorFlowV2": _TENSORFLOW,
    "AdversarialTexturePyTorch": _DETECTOR,
    "AutoAttack": "it is not AutoAttack: no FAB and no targeted APGD but DeepFool, a first step of 0.1 whatever the "
    "radius, and it needs the package multiprocess; use the battery `standard`, or the members by name",
    "BrendelBethgeAttack": "it needs numba, which robustvid does not install; use the cards `fab`, `fmn` and `ddn`",
    "CarliniWagnerASR": _SPEECH,
    "CompositeAdversarialAttackPyTorch": "it turns hue and geometry, which no budget measures, and needs kornia",
    "DPatch": _DETECTOR,
    "DecisionTreeAttack": "it attacks decision trees",
    "FeatureAdversariesNumpy": _GUIDE,
    "FeatureAdversariesPyTorch": _GUIDE,
    "FeatureAdversariesTensorFlowV2": _TENSORFLOW,
    "GRAPHITEBlackbox": _ROADSIGN,
    "GRAPHITEWhiteboxPyTorch": _ROADSIGN,
    "GeoDA": "it calls np.mat, which NumPy 2 no longer has, and leaves files in the working folder; use `rays`",
    "HighConfidenceLowUncertainty": "it attacks Gaussian processes",
    "ImperceptibleASR": _SPEECH,
    "ImperceptibleASRPyTorch": _SPEECH,
    "LaserAttack": _LASER,
    "LaserBeamAttack": _LASER,
    "LowProFool": "it attacks tables, and wants the importance of every column",
    "MalwareGDTensorFlow": "it attacks malware detectors, in TensorFlow",
    "OverloadPyTorch": _DETECTOR,
    "PixelThreshold": _BASE,
    "ProjectedGradientDescentCommon": _BASE,
    "ProjectedGradientDescentTensorFlowV2": _TENSORFLOW,
    "RobustDPatch": _DETECTOR,
    "SNAL": _DETECTOR,
    "SaliencyMapMethod": "it is targeted alone: without a target it draws one at random",
    "SpatialTransformation": "it turns and shifts whole images, which no budget measures; use the card `flow-warp`",
    "TargetedUniversalPerturbation": _UNIVERSAL,
    "ThresholdAttack": "it evolves one candidate for each pixel value: 98304 of them for 8 frames of 64 by 64, each as "
    "large as the clip",
    "UniversalPerturbation": _UNIVERSAL,
    "VirtualAdversarialMethod": "it estimates every gradient by one forward for each pixel value: 98304 of them "
    "a step for 8 frames of 64 by 64",
    "Wasserstein": "it moves brightness between pixels inside a Wasserstein ball, which no budget measures",
}


def _evasion() -> Any:
    try:
        from art.attacks import evasion
    except ImportError as error:
        raise LIBRARY.missing(error) from None
    return evasion


def _constructor(name: str) -> Any:
    return getattr(_evasion(), name)


def _classifier(shown: Shown) -> Any:
    from art.estimators.classification import PyTorchClassifier

    # The toolbox works on NumPy arrays, so it stays on the CPU; the window takes the images to the model's device. The
    # sum makes a clip's gradient the same in any batch.
    return PyTorchClassifier(
        model=shown.window,
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=tuple(shown.images.shape[1:]),
        nb_classes=shown.classes,
        clip_values=(0.0, 1.0),
        channels_first=True,
        device_type="cpu",
    )


def _build(name: str, classifier: Any, shown: Shown, settings: dict[str, Any]) -> Any:
    constructor = _constructor(name)
    known = inspect.signature(constructor).parameters
    ours = {
        "eps": shown.eps,
        "norm": _NORMS[shown.norm],
        # One image at a time where the toolbox insists on it; else all together, since a clip may be several images.
        "batch_size": 1 if name == "SimBA" else len(shown.images),
        "targeted": False,
        "verbose": False,
        "frame_index": 2,
    }
    return constructor(classifier, **{key: value for key, value in ours.items() if key in known}, **settings)


def _run(name: str, shown: Shown, settings: dict[str, Any]) -> Tensor:
    classifier = _classifier(shown)
    if name == "FrameSaliencyAttack":
        settings["attacker"] = _inner(settings.pop("attacker"), settings.pop("max_iter"), classifier, shown)
    images = shown.images.cpu().numpy().astype(np.float32)
    targets = np.eye(shown.classes, dtype=np.float32)[shown.labels.cpu().numpy()]
    attack = _build(name, classifier, shown, settings)
    return torch.from_numpy(np.array(attack.generate(images, y=targets)))


def _inner(name: str, steps: int, classifier: Any, shown: Shown) -> Any:
    if name not in _INNER:
        raise CardError(f"art:FrameSaliencyAttack: attacker={name!r}; give {' or '.join(_INNER)}")
    settings = {"max_iter": steps} if name == "ProjectedGradientDescent" else {}
    return _build(name, classifier, shown, settings | {"eps_step": shown.eps / 10})


LIBRARY = Library(
    name="art",
    package="adversarial-robustness-toolbox",
    usable=USABLE,
    refused=REFUSED,
    reserved=frozenset(
        {"estimator", "classifier", "batch_size", "targeted", "verbose", "summary_writer", "frame_index", "patch_shape"}
    ),
    constructor=_constructor,
    run=_run,
    elsewhere={"linf": "ProjectedGradientDescent", "l2": "ProjectedGradientDescent"},
)
