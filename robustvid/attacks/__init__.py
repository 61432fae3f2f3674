"""Attacks: pure functions ``(model, clips, labels, budget, seeds) -> clips``, one file each."""

from robustvid.registry import Registry

ATTACKS = Registry(
    "attack function",
    {
        "fgsm": "robustvid.attacks.fgsm:fgsm",
        "mi_fgsm": "robustvid.attacks.mi_fgsm:mi_fgsm",
        "pgd": "robustvid.attacks.pgd:pgd",
    },
)
