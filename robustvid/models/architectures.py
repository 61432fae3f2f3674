"""The architectures by name. Each is a function ``build(classes, **options) -> nn.Module``."""

from __future__ import annotations

import inspect
from typing import Any

from robustvid.errors import ModelError
from robustvid.registry import Registry

ARCHITECTURES = Registry(
    "architecture",
    {
        "conv3d": "robustvid.models.conv3d:build",
        "frame_pool": "robustvid.models.frame_pool:build",
        "frame_rnn": "robustvid.models.frame_rnn:build",
        "huggingface": "robustvid.models.huggingface:build",
        "slim": "robustvid.models.slim:build",
        "torchvision": "robustvid.models.torchvision:build",
    },
)


def call_builder(name: str, builder: Any, /, *args: Any, **options: Any) -> Any:
    """Call a builder and return what it returns.

    Args:
        name: what the builder is called in messages.
        builder: any callable.
        args: its positional arguments.
        options: its keyword arguments.

    Raises:
        ModelError: it is not callable, or its signature has no place for these arguments; the message quotes it.
    """
    if not callable(builder):
        raise ModelError(f"{name} is {type(builder).__name__}, not a function that builds a model")
    signature = inspect.signature(builder)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        raise ModelError(f"{name}: {error}; its signature is {signature}") from None
    return builder(*args, **options)
