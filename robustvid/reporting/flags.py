"""What the flags mean, in one line each; docs/flags.md says more."""

from __future__ import annotations

_MEANINGS = {
    "random-output": "The model answers the same clip differently each time: its robustness may be luck of the draw.",
    "batch-dependent": "A clip's answer depends on the clips beside it: attacks of one clip disturb the others.",
    "probabilities": "The outputs look like probabilities: gradients of a saturated softmax hide weaknesses.",
    "no-gradient": "Gradient attacks get no direction: what they cannot break may still be easy to break.",
    "training-mode": "Parts of the model stay in training mode when they are told to evaluate.",
    "no-better-than-chance": "The model may be guessing: there is no accuracy for an attack to take away.",
    "skipping-was-wrong": "Clips counted as robust at small radii may not be: use --strategy every.",
    "black-box-beats-white-box": "Attacks without gradients find more than those with them: the gradient is masked.",
    "fgsm-beats-pgd": "One step breaks more than many steps: the gradient misleads, or PGD is set up too weakly.",
}


def meaning(flag: str) -> str:
    """Return in one sentence why a flag is a reason for doubt."""
    return _MEANINGS.get(flag, "A reason to doubt these numbers; docs/flags.md explains it.")
