"""What one more attack breaks: clips at the edge of their radius, judged as the boards judge."""

import torch
from noise import BUDGETS, Noise, toy_model

import robustvid as rv
from benchmarks.leftover import attacked, edges
from benchmarks.models import as_clip
from robustvid.evaluation.cards import as_attack


def test_each_clip_is_taken_at_the_largest_radius_at_which_it_stands(tmp_path):
    model = toy_model()
    results = rv.evaluate(model, Noise(model), ["fgsm"], BUDGETS, out=tmp_path / "run")
    stand = results.curve("linf-frame").correct.tolist()[1:]
    cells = [edge.cell for edge in edges(results, 0)]
    assert [sum(cell >= place for cell in cells) for place in range(len(BUDGETS))] == stand
    assert stand[0] > stand[-1]


def test_only_what_keeps_to_the_budget_counts_as_broken():
    model = toy_model()
    samples = [Noise(model).sample(index, model.card.clip) for index in range(1, 8)]
    clips = torch.cat([as_clip(sample.frames) for sample in samples])
    labels = torch.tensor([sample.label for sample in samples])
    with torch.no_grad():
        falls = model(1 - clips).argmax(1) != labels
    assert bool(falls.any())
    inverted = as_attack(lambda _model, clips, *_: 1 - clips)
    for radius, wanted in ((1.0, falls), (0.5, torch.zeros_like(falls))):
        budget = rv.Budget("linf", torch.full((7,), radius, dtype=torch.float64))
        assert torch.equal(attacked(model, clips, labels, budget, inverted).broken, wanted)
