"""Options that several commands take, and how a command takes a long list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

DATA: Decorator = click.option(
    "-d", "--data", default="motion10", show_default=True, help="Dataset name, or module:function."
)
ROOT: Decorator = click.option("--root", type=click.Path(), help="Folder of the dataset; motion10 needs none.")
BOARDS: Decorator = click.option(
    "--boards", type=click.Path(), help="Folder of all boards.  [default: those that come with robustvid]"
)
SEED: Decorator = click.option("--seed", default=0, show_default=True, help="Seed of every random draw.")
DEVICE: Decorator = click.option("--device", help="cpu, cuda, cuda:1.  [default: a GPU when there is one]")
ON_ERROR: Decorator = click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a video that cannot be read; what is skipped is listed, learnt by nothing and counted nowhere.",
)
MLFLOW: Decorator = click.option(
    "--mlflow",
    "mlflow_mode",
    type=click.Choice(["auto", "off", "required"]),
    default="auto",
    show_default=True,
    help="Log to MLflow if it answers, never, or fail without it.",
)
JSON: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else."
)


def all_of(options: Sequence[Decorator]) -> Decorator:
    """Return one decorator that adds all options, in the order given, and refuses a value that is empty.

    ``--board "$BOARD"`` where the shell knows no such variable would else measure something else than was asked.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def strict(**given: Any) -> None:
            for option in click.get_current_context().command.params:
                value = given.get(option.name or "")
                if value == "" or (isinstance(value, tuple) and "" in value):
                    raise click.UsageError(f"{option.opts[-1]} is empty: leave it out, or give it a value")
            return command(**given)

        extended: Callable[..., None] = strict
        for option in reversed(options):
            extended = option(extended)
        return extended

    return add


@contextmanager
def told_of_skipping() -> Iterator[None]:
    """Let an error of a video that cannot be read say what --on-error does."""
    from robustvid.errors import DataError, DecodeError

    try:
        yield
    except DecodeError as error:
        raise DataError(f"{error}. What is done is kept; --on-error skip leaves such videos out") from error
