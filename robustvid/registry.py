"""One lazy table per noun: names map to ``"module:attribute"`` and load on first use."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import math
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustvid.errors import CardError, UnknownNameError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'pgd'?"`` when something known is close to ``name``, else ``""``."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def load_object(target: str) -> Any:
    """Import ``"package.module:attribute"`` or ``"path/to/file.py:attribute"``.

    Raises:
        UnknownNameError: the module, file or attribute does not exist.
    """
    module_name, _, attribute = target.rpartition(":")
    relative = module_name.startswith(".") and not module_name.endswith(".py")
    if not module_name or not attribute or relative:
        raise UnknownNameError(f"{target!r} is not of the form 'module:attribute' or 'file.py:attribute'")
    module = _load_file(module_name) if module_name.endswith(".py") else _load_module(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UnknownNameError(f"{module_name} has no {attribute!r}.{did_you_mean(attribute, dir(module))}") from None


def _load_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise UnknownNameError(f"no module named {error.name!r}; is it installed, or on PYTHONPATH?") from None


def _load_file(path: str) -> Any:
    file = Path(path)
    if not file.is_file():
        raise UnknownNameError(f"no file {path}")
    name = "robustvid_user_" + file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UnknownNameError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def check_name(noun: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        UnknownNameError: lists what exists and the nearest match.
    """
    if name not in known:
        raise UnknownNameError(f"no {noun} named {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")


@dataclass(frozen=True)
class Registry:
    """A table of names for one noun.

    Attributes:
        noun: what the names stand for, in the singular; used in messages.
        targets: name to ``"module:attribute"``.
    """

    noun: str
    targets: Mapping[str, str]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self.targets)

    def load(self, name: str) -> Any:
        """Return the object that ``name`` stands for.

        Raises:
            UnknownNameError: no such name; the message lists what exists and the nearest match.
        """
        check_name(self.noun, name, self.names())
        return load_object(self.targets[name])


def split_params(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``"pgd:steps=50"`` into the name and the parameters; ``"module:function"`` has none."""
    name, colon, tail = text.rpartition(":")
    if not colon or "=" not in tail:
        return text, {}
    pairs = (item.partition("=") for item in tail.split(","))
    return name, {key.strip(): _read_value(value.strip()) for key, _, value in pairs}


def _read_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check_params(params: Mapping[str, Any], signature: Sequence[inspect.Parameter], target: str, where: str) -> None:
    """Refuse parameters that a function does not take, that are of another type than its default, or not finite.

    Args:
        params: what was given.
        signature: the parameters that may be given.
        target: what the function is called.
        where: what the parameters were read from.

    Raises:
        CardError: names the parameter and what is taken instead.
    """
    known = {p.name: p for p in signature}
    variadic = any(p.kind is p.VAR_KEYWORD for p in signature)
    for key, value in params.items():
        if key not in known and not variadic:
            knobs = ", ".join(str(p) for p in signature) or "no parameters"
            raise CardError(f"{where}: no parameter {key!r}.{did_you_mean(key, known)} {target} takes: {knobs}.")
        default = known[key].default if key in known else None
        if not _fits(value, default):
            raise CardError(f"{where}: {key} = {value!r}, but {target} wants {a_type(type(default))}")
        if isinstance(value, float) and not math.isfinite(value):
            raise CardError(f"{where}: {key} = {value}; a number that is not finite means nothing here")


def a_type(kind: type) -> str:
    """Return a type in words: ``"an int"``, ``"a str"``."""
    return f"{'an' if kind.__name__[0] in 'aeiou' else 'a'} {kind.__name__}"


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return not isinstance(default, bool | int | float | str) or isinstance(value, bool) == isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return not isinstance(default, int | str) or isinstance(value, type(default))


def source_of(thing: Any) -> str:
    """Return the text of the file that defines a function or class; ``""`` where there is none to read."""
    try:
        return Path(inspect.getsourcefile(thing) or "").read_text(encoding="utf-8")
    except (OSError, TypeError):
        return ""


def shipped_folder(name: str) -> Path:
    """Return the folder ``name`` that comes with robustvid: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "_shipped" / name
    return inside if inside.is_dir() else package.parent / name
