"""Controls that ask how much of a dataset is motion: ``python -m robustvid.training.controls``."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from robustvid.data import load_data
from robustvid.training.accuracy import Accuracy, clean_accuracy
from robustvid.training.zoo import RECIPES, make


def single_frame() -> Accuracy:
    """Train ``frame_pool`` on single frames of motion10 and count its successes on the middle frames of the test split.

    On data whose label is motion alone it stays at chance, 40 of 400.

    Raises:
        DataError: motion10 cannot be read or made.
    """
    recipe = RECIPES["frame_pool"]
    model = make("single_frame", replace(recipe, clip=replace(recipe.clip, frames=1)))
    return clean_accuracy(model, load_data("motion10", split="test"))


if __name__ == "__main__":
    correct, n = single_frame()
    Console().print(f"single frame: {correct} of {n} test clips")
