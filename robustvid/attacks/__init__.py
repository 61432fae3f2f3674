"""Attacks: pure functions ``(model, clips, labels, budget, seeds) -> clips``, one file each."""

from robustvid.registry import Registry

ATTACKS = Registry(
    "attack function",
    {
        "apgd": "robustvid.attacks.apgd:apgd",
        "apgd_shrink": "robustvid.attacks.apgd:apgd_shrink",
        "apgd_t": "robustvid.attacks.apgd:apgd_t",
        "border": "robustvid.attacks.patch:border",
        "corruption": "robustvid.attacks.corruption:corruption",
        "ddn": "robustvid.attacks.ddn:ddn",
        "di_fgsm": "robustvid.attacks.transfer:di_fgsm",
        "fab": "robustvid.attacks.fab:fab",
        "fgsm": "robustvid.attacks.fgsm:fgsm",
        "flicker": "robustvid.attacks.flicker:flicker",
        "flow_warp": "robustvid.attacks.flow_warp:flow_warp",
        "fmn": "robustvid.attacks.fmn:fmn",
        "frame_shuffle": "robustvid.attacks.frame_shuffle:frame_shuffle",
        "l21": "robustvid.attacks.sparse:l21",
        "mi_fgsm": "robustvid.attacks.mi_fgsm:mi_fgsm",
        "nes": "robustvid.attacks.nes:nes",
        "ni_fgsm": "robustvid.attacks.transfer:ni_fgsm",
        "one_frame": "robustvid.attacks.sparse:one_frame",
        "patch": "robustvid.attacks.patch:patch",
        "pgd": "robustvid.attacks.pgd:pgd",
        "rays": "robustvid.attacks.rays:rays",
        "si_fgsm": "robustvid.attacks.transfer:si_fgsm",
        "sparse_frames": "robustvid.attacks.sparse:sparse_frames",
        "square": "robustvid.attacks.square:square",
        "temporal_shift": "robustvid.attacks.temporal_shift:temporal_shift",
        "ti_fgsm": "robustvid.attacks.transfer:ti_fgsm",
        "universal": "robustvid.attacks.universal:universal",
        "vmi_fgsm": "robustvid.attacks.transfer:vmi_fgsm",
    },
)

LIBRARIES = Registry(
    "library of attacks",
    {"art": "robustvid.attacks.art:LIBRARY", "torchattacks": "robustvid.attacks.torchattacks:LIBRARY"},
)
