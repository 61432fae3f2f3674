"""``torchattacks:NAME``: the attacks of torchattacks as second opinions on video."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from robustvid.attacks.layouts import FRAMES, SHEET
from robustvid.attacks.peers import BOTH, L2, Library, Shown, Usable

_NORMS = {"linf": "Linf", "l2": "L2"}

USABLE = {
    "APGD": Usable(BOTH, framewise=True),
    "APGDT": Usable(BOTH, framewise=True, classes=4),
    "BIM": Usable(separable=True),
    "CW": Usable(BOTH, bounded=False),
    # Input diversity makes frames square and the kernel of TIFGSM smears across the seams of a strip.
    "DIFGSM": Usable(layout=FRAMES),
    "DeepFool": Usable(BOTH, bounded=False),
    "EOTPGD": Usable(separable=True),
    "FAB": Usable(BOTH, bounded=False),
    "FFGSM": Usable(),
    "FGSM": Usable(separable=True),
    "GN": Usable(BOTH, bounded=False),
    "Jitter": Usable(),
    "MIFGSM": Usable(separable=True),
    "NIFGSM": Usable(separable=True),
    "OnePixel": Usable(BOTH, bounded=False),
    "PGD": Usable(separable=True),
    "PGDL2": Usable(L2, framewise=True),
    "PGDRS": Usable(),
    "PGDRSL2": Usable(L2),
    # Pixle mixes up rows and columns, Square draws windows larger than a strip is wide: both need square images.
    "Pixle": Usable(BOTH, SHEET, bounded=False),
    "RFGSM": Usable(),
    "SINIFGSM": Usable(separable=True),
    "SparseFool": Usable(BOTH, bounded=False),
    "Square": Usable(BOTH, SHEET),
    "TIFGSM": Usable(layout=FRAMES),
    "TPGD": Usable(),
    "UPGD": Usable(separable=True),
    "VMIFGSM": Usable(),
    "VNIFGSM": Usable(),
}
REFUSED = {
    "AutoAttack": "it is not AutoAttack: APGD, APGDT and FAB run 10 steps where the reference runs 100, and Square "
    "rescales its schedule where the reference does not; use the battery `standard`, or the members by name",
    "LGV": "it gathers surrogate weights by training on the training set, which an attack is not given",
    "MultiAttack": "it takes attack objects, not settings; give several attacks, or a battery",
    "VANILA": "it returns the clip as it is, which every run measures as clean accuracy",
}


def _constructor(name: str) -> Any:
    try:
        import torchattacks
    except ImportError as error:
        raise LIBRARY.missing(error) from None
    return getattr(torchattacks, name)


def _run(name: str, shown: Shown, settings: dict[str, Any]) -> Tensor:
    constructor = _constructor(name)
    ours = {
        "eps": shown.eps,
        "norm": _NORMS[shown.norm],
        "seed": shown.seed,
        "n_classes": shown.classes,
        "verbose": False,
    }
    known = inspect.signature(constructor).parameters
    attack = constructor(shown.window, **{key: value for key, value in ours.items() if key in known}, **settings)
    images: Tensor = attack(shown.images, shown.labels)
    return images


LIBRARY = Library(
    name="torchattacks",
    package="torchattacks",
    usable=USABLE,
    refused=REFUSED,
    reserved=frozenset({"model", "seed", "n_classes", "verbose"}),
    constructor=_constructor,
    run=_run,
    elsewhere={"linf": "PGD", "l2": "PGDL2"},
)
