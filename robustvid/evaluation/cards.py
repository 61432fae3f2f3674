"""Cards: named attack settings as TOML files, and batteries, which are lists of cards."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustvid.attacks import ATTACKS, LIBRARIES
from robustvid.attacks.peers import LibraryAttack
from robustvid.budget import Budget
from robustvid.contracts import check_clips, check_labels, frozen
from robustvid.errors import AttackError, CardError, UnknownNameError
from robustvid.registry import a_type, check_params, did_you_mean, load_object, shipped_folder, source_of, split_params

_INPUTS = 5  # model, clips, labels, budget, seeds
_CARD_KEYS = {"title": str, "paper": str, "access": str, "version": int, "attack": str, "params": dict}
_BATTERY_KEYS = {"title": str, "version": int, "cards": list}


@dataclass(frozen=True)
class Attack:
    """An attack function with its keyword arguments set.

    Attributes:
        name: what reports call it.
        function: ``(model, clips, labels, budget, seeds, **params) -> clips``.
        target: registry name or ``"module:attribute"`` of the function.
        params: keyword arguments of the function.
        version: of the card; 0 without a card.
        title: one line for lists.
        paper: where it comes from.
        access: ``white-box``, ``score``, ``decision`` or, without a look at the model, ``blind``.
    """

    name: str
    function: Callable[..., Tensor]
    target: str
    params: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    title: str = ""
    paper: str = ""
    access: str = ""

    @functools.cached_property
    def key(self) -> str:
        """Return the hash of all that could change what the attack does; it travels with every row."""
        facts: dict[str, Any] = {"attack": self.target, "version": self.version, "params": self.arguments()}
        if isinstance(self.function, LibraryAttack):
            facts["source"] = self.function.digest
        elif self.target not in ATTACKS.targets:
            facts["source"] = _source_digest(self.function)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments with the function's defaults filled in."""
        signature = inspect.signature(self.function).parameters.values()
        defaults = {p.name: p.default for p in list(signature)[_INPUTS:] if p.default is not p.empty}
        return defaults | dict(self.params)

    def __call__(self, model: nn.Module, clips: Tensor, labels: Tensor, budget: Budget, seeds: Tensor) -> Tensor:
        """Return adversarial clips; the model is lent out frozen and comes back as it was.

        Args:
            model: returns logits ``(B, K)`` for clips in [0, 1].
            clips: float32 ``(B, 3, T, H, W)`` in [0, 1].
            labels: int64 ``(B,)``.
            budget: what the perturbation may be.
            seeds: int64 ``(B,)``, all the randomness there is.

        Raises:
            ClipError: clips or labels are not as the contract says.
            AttackError: the function returned no tensor.
        """
        check_clips(clips)
        check_labels(labels, clips)
        with frozen(model):
            adversarial = self.function(model, clips, labels, budget, seeds, **self.params)
        if not isinstance(adversarial, Tensor):
            raise AttackError(f"{self.name} returned {type(adversarial).__name__}; a tensor of clips is wanted")
        return adversarial.detach()


@dataclass(frozen=True)
class Battery:
    """Attacks run in order, each on the clips that the earlier ones left standing."""

    name: str
    attacks: tuple[Attack, ...]
    version: int
    title: str = ""


def load_attack(name_or_path: str, **params: Any) -> Attack:
    """Return an attack by card name, card file, library and name, or ``"module:function"``.

    Args:
        name_or_path: ``"pgd"``, ``"pgd:steps=50,restarts=2"``, ``"my/card.toml"``, ``"my_pkg.mine:attack"``,
            ``"file.py:attack"``, ``"torchattacks:PGD"`` or ``"art:SquareAttack:max_iter=500"``.
        **params: keyword arguments of the attack function that replace those of the card.

    Raises:
        UnknownNameError: nothing of that name.
        CardError: the card, or a parameter, cannot be used, or the library's attack cannot work on video.
        MissingPackageError: the library is not installed.

    Example:
        >>> load_attack("pgd", steps=50).name
        'pgd:steps=50'
    """
    name, inline = split_params(name_or_path)
    if (path := _card_path(name)) is not None:
        attack = _read_card(path)
    elif (function := _from_library(name)) is not None:
        attack = Attack(name, function, name, title=inspect.getdoc(function) or "")
    elif ":" in name:
        attack = _from_function(_load_own(name), name)
    else:
        raise UnknownNameError(
            f"no attack named {name!r}.{did_you_mean(name, list_cards())} There are: {', '.join(list_cards())}."
        )
    return _with_params(attack, inline | params)


def _load_own(target: str) -> Any:
    try:
        return load_object(target)
    except UnknownNameError as error:
        card = target.partition(":")[0]
        if _card_path(card) is None:
            raise
        raise UnknownNameError(f"{error} For the card {card} write settings as {card}:name=value,name=value.") from None


def load_battery(name_or_path: str) -> Battery:
    """Return a battery by name or file.

    Args:
        name_or_path: ``"standard"`` for the newest, ``"standard@1"`` for that version, or ``"my/battery.toml"``.

    Raises:
        UnknownNameError: nothing of that name, or not in that version.
        CardError: the file cannot be used, or a card has another version than the battery asks for.
    """
    path = _battery_path(name_or_path)
    if path is None:
        known = list_batteries()
        raise UnknownNameError(
            f"no battery named {name_or_path!r}.{did_you_mean(name_or_path, known)} There are: {', '.join(known)}."
        )
    table = _read_toml(path)
    _check_keys(path, table, _BATTERY_KEYS, optional=())
    attacks = tuple(_battery_card(path, entry) for entry in table["cards"])
    if not attacks:
        raise CardError(f"{path}: the battery lists no cards")
    return Battery(path.stem.partition("@")[0], attacks, table["version"], table["title"])


def list_cards() -> list[str]:
    """Return the names of all cards that come with robustvid."""
    return [path.stem for path in _shipped() if "cards" not in _read_toml(path)]


def list_batteries() -> list[str]:
    """Return the names of all batteries that come with robustvid."""
    return [path.stem for path in _shipped() if "cards" in _read_toml(path)]


def as_attack(function: Callable[..., Tensor]) -> Attack:
    """Wrap a plain attack function, named after itself."""
    inner: Any = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return _from_function(function, f"{getattr(inner, '__module__', 'function')}:{name}")


def _shipped() -> list[Path]:
    return sorted(shipped_folder("attacks").glob("*.toml"))


def _card_path(name: str) -> Path | None:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UnknownNameError(f"no card file {name}")
        return path
    return next((path for path in _shipped() if path.stem == name), None)


def _battery_path(name: str) -> Path | None:
    """Return the file of a battery; ``"standard@2"`` is ``"standard"`` as long as that is its version."""
    path = _card_path(name)
    if path is None:
        plain, _, version = name.partition("@")
        path = _card_path(plain)
        if path is not None and str(_read_toml(path).get("version")) != version:
            return None
    return path if path is not None and "cards" in _read_toml(path) else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path} is not TOML: {error}") from None


def _check_keys(path: Path, table: Mapping[str, Any], wanted: Mapping[str, type], optional: tuple[str, ...]) -> None:
    for key in table:
        if key not in wanted:
            raise CardError(f"{path}: unknown key {key!r}.{did_you_mean(key, wanted)} A card has: {', '.join(wanted)}.")
    for key, kind in wanted.items():
        if key not in table and key not in optional:
            raise CardError(f"{path}: the key {key!r} is missing")
        if key in table and not isinstance(table[key], kind):
            raise CardError(f"{path}: {key} is {table[key]!r}; {a_type(kind)} is wanted")


def _read_card(path: Path) -> Attack:
    table = _read_toml(path)
    if "cards" in table:
        raise CardError(f"{path} is a battery, not an attack; use --battery {path.stem}")
    _check_keys(path, table, _CARD_KEYS, optional=("params", "paper", "access"))
    target = table["attack"]
    function = _from_library(target) or (load_object(target) if ":" in target else ATTACKS.load(target))
    about = {key: table[key] for key in ("version", "title", "paper", "access") if key in table}
    attack = Attack(path.stem, function, target, **about)
    return replace(attack, params=_checked_params(attack, table.get("params", {}), str(path)))


def _from_library(target: str) -> LibraryAttack | None:
    """Return the attack of a library that ``target`` names, such as ``"art:DeepFool"``; None when it names none."""
    library, _, name = target.partition(":")
    if library not in LIBRARIES.targets or not name:
        return None
    attack: LibraryAttack = LIBRARIES.load(library).load(name)
    return attack


def _from_function(function: Any, target: str) -> Attack:
    if not callable(function) or inspect.isclass(function):
        raise CardError(f"{target} is not an attack function (model, clips, labels, budget, seeds) -> clips")
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())
    if len(positional) < _INPUTS and not variadic:
        raise CardError(
            f"{target}{inspect.signature(function)} does not take (model, clips, labels, budget, seeds), "
            "the five inputs of every attack"
        )
    return Attack(
        target.rpartition(":")[2].rpartition(".")[2],
        function,
        target,
        title=(inspect.getdoc(function) or "").split("\n")[0],
    )


def _with_params(attack: Attack, params: Mapping[str, Any]) -> Attack:
    if not params:
        return attack
    checked = _checked_params(attack, params, attack.name)
    name = attack.name + ":" + ",".join(f"{key}={value}" for key, value in sorted(checked.items()))
    return replace(attack, name=name, params=dict(attack.params) | checked)


def _checked_params(attack: Attack, params: Mapping[str, Any], where: str) -> dict[str, Any]:
    if isinstance(attack.function, LibraryAttack):
        attack.function.check(params)
    check_params(params, list(inspect.signature(attack.function).parameters.values())[_INPUTS:], attack.target, where)
    return dict(params)


def _battery_card(path: Path, entry: Any) -> Attack:
    name, at, version = str(entry).partition("@")
    if not at or not version.isdigit():
        raise CardError(f"{path}: {entry!r} is not of the form 'card@version'")
    attack = load_attack(name)
    if attack.version != int(version):
        raise CardError(f"{path} asks for {name} version {version}, but its card is version {attack.version}")
    return attack


def _source_digest(function: Callable[..., Tensor]) -> str:
    """Return a hash of a user's function: its source file, what it closes over, and a partial's arguments."""
    settings: list[Any] = []
    inner: Any = function
    while isinstance(inner, functools.partial):
        settings += [inner.args, sorted(inner.keywords.items())]
        inner = inner.func
    settings += [getattr(inner, "__qualname__", type(inner).__qualname__)]
    settings += [cell.cell_contents for cell in getattr(inner, "__closure__", None) or ()]
    return hashlib.sha256(f"{source_of(inner)}\0{settings!r}".encode()).hexdigest()[:16]
