"""Long lists of options, kept apart from the function that takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def all_of(options: Sequence[Decorator]) -> Decorator:
    """Return one decorator that adds all options, in the order given."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)
