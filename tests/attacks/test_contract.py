"""Every card keeps the contract: any budget, class count, clip length, square or not, alone or in company."""

import inspect

import pytest
import torch

import robustvid as rv
from robustvid.evaluation.cards import list_cards
from robustvid.testing import BUDGETS, check_attack

# Few steps: the contract does not depend on how many there are.
FEW = {"steps": 2, "queries": 20, "targets": 2, "samples": 6, "neighbours": 2, "copies": 2, "shifts": 1, "tries": 2}
CLIPS = {"one frame": (1, 16, 16), "eight frames, 3:4": (8, 12, 16), "sixteen frames": (16, 12, 12)}


def small(card):
    attack = rv.load_attack(card)
    known = inspect.signature(attack.function).parameters
    return rv.load_attack(card, **{name: value for name, value in FEW.items() if name in known})


def ready(card):
    """Return the attack; one that is fitted to training clips first is fitted to noise, for each model and budget."""
    attack = small(card)
    fit = getattr(attack.function, "fit", None)
    if fit is None:
        return attack

    def fitted(model, clips, labels, budget, seeds):
        noise = torch.rand(4, *clips.shape[1:], generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            answers = model(noise).argmax(1)
        delta = fit(model, noise, answers, budget, epochs=1)
        return attack.function(model, clips, labels, budget, seeds, delta=delta)

    return fitted


@pytest.mark.parametrize("card", list_cards())
def test_every_card_on_every_budget(card):
    for classes, shape in zip((2, 3, 10), CLIPS.values(), strict=True):
        check_attack(ready(card), classes=[classes], shapes=[shape])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(t, h, w) for t in (1, 8, 16) for h, w in ((32, 32), (48, 64))], ids=str)
@pytest.mark.parametrize("card", list_cards())
def test_every_card_on_everything(card, shape):
    check_attack(ready(card), BUDGETS, classes=(2, 3, 10), shapes=[shape])
