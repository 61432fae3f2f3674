"""Boards: what is measured, on what, within which budgets, and which number is the headline."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustvid.attacks.corruption import SEVERITIES
from robustvid.budget import Budget
from robustvid.contracts import VideoDataset
from robustvid.data import DATASETS, load_data
from robustvid.errors import BudgetError, CardError, LeaderboardError, UnknownNameError
from robustvid.evaluation.cards import Attack, Battery, load_attack, load_battery
from robustvid.evaluation.results import Results
from robustvid.evaluation.threats import Threat, group_threats
from robustvid.leaderboard.fields import NAME, is_count
from robustvid.registry import check_name, shipped_folder

PROTOCOL = "board.toml"


@dataclass(frozen=True)
class Board:
    """A protocol. Runs are comparable where everything in it is the same.

    Attributes:
        name: of the board, and of its folder.
        title: what it measures, in words.
        version: rises when anything below changes.
        data: name of the dataset.
        split: part of it.
        videos: how many videos the split has, 0 where that depends on what is still to be had.
        digest: of the dataset's files, ``""`` where the dataset gives none.
        clips: how many are measured, drawn by ``seed``.
        seed: of every random draw.
        battery: name and version; ``""`` on a board of corruptions.
        corruptions: kinds that every clip meets at every severity, each on its own; none on a board of attacks.
        keys: the attacks, by the hashes of their cards.
        strategy: of the search for each clip's critical radius.
        precision: of the model that attacks work on.
        budgets: what perturbations may be.
        headline: the budget whose robust accuracy orders the board; with corruptions, the mean over all of them does.
        clip: frames, stride and size of the clips; None where every model takes its own.
        folder: where protocol and entries lie.
    """

    name: str
    title: str
    version: int
    data: str
    split: str
    videos: int
    digest: str
    clips: int
    seed: int
    battery: str
    corruptions: tuple[str, ...]
    keys: tuple[str, ...]
    strategy: str
    precision: str
    budgets: tuple[Budget, ...]
    headline: Budget
    clip: Mapping[str, Any] | None
    folder: Path

    @property
    def threat(self) -> Threat:
        """Return the threat that the headline belongs to."""
        return next(threat for threat in group_threats(self.budgets) if self.headline in threat.budgets)

    @property
    def question(self) -> str:
        """Return in words what orders the board."""
        if self.corruptions:
            return f"the mean over {len(self.corruptions)} corruptions at {SEVERITIES} severities"
        return self.headline.describe()

    def load_attacks(self) -> Battery | list[Attack]:
        """Return the battery, or every corruption at every severity.

        Raises:
            UnknownNameError: there is no such battery, or not in that version.
            CardError: a card cannot be loaded.
        """
        if not self.corruptions:
            return load_battery(self.battery)
        severities = range(1, SEVERITIES + 1)
        return [load_attack(f"corruption:kind={kind},severity={s}") for kind in self.corruptions for s in severities]

    def load_data(self, source: str, root: str | Path | None = None) -> VideoDataset:
        """Return the data that the board measures on.

        Args:
            source: what :func:`robustvid.load_data` takes: ``board.data``, or what holds the same, such as ``"cache"``.
            root: folder that holds them.

        Raises:
            LeaderboardError: the name alone loads nothing, or the source holds other data.
            DataError: they cannot be used.
        """
        if source == self.data and source not in DATASETS.targets:
            raise LeaderboardError(
                f"{self.name} is measured on {self.data!r}, which does not come with robustvid: say with --data what "
                "loads it"
            )
        data = load_data(source, root=root, split=self.split)
        if data.name != self.data:
            raise LeaderboardError(f"{self.name} is measured on {self.data!r}; {source} holds {data.name!r}")
        return data

    def mismatches(self, results: Results, *, other_attacks: bool = False) -> list[str]:
        """Return where a run's spec differs from the protocol, in words.

        Args:
            results: the run.
            other_attacks: let the run attack in another way, as evaluations by others may.

        Raises:
            LeaderboardError: the spec is damaged.
        """
        found = followed(results)
        wanted = {name: getattr(self, name) for name in found} | {"surrogate": None}
        found["surrogate"] = results.surrogate
        for fields in (wanted, found):
            fields["budgets"] = sorted(_words(fields["budgets"]))
        free = {"videos"} if not self.videos else set()
        free |= {"clip"} if self.clip is None else set()
        free |= _ATTACK_FIELDS if other_attacks else set()
        return [
            f"{name} is {_plain(found[name])!r}, the board wants {_plain(wanted[name])!r}"
            for name in found
            if name not in free and found[name] != wanted[name]
        ]


def shipped_boards() -> Path:
    """Return the folder of the boards that come with robustvid."""
    return shipped_folder("leaderboards")


def list_boards(root: Path | None = None) -> list[str]:
    """Return the names of the boards in a folder; of those that come with robustvid when None.

    Raises:
        LeaderboardError: there are none.
    """
    root = root or shipped_boards()
    names = sorted(path.parent.name for path in root.glob(f"*/{PROTOCOL}"))
    if not names:
        raise LeaderboardError(f"{root} holds no boards: no */{PROTOCOL} in it")
    return names


def load_board(name: str, root: Path | None = None) -> Board:
    """Return a board by name.

    Args:
        name: of its folder.
        root: the folder of all boards; that which comes with robustvid when None.

    Raises:
        UnknownNameError: there is no such board.
        LeaderboardError: there are no boards at all, or its protocol cannot be read.
        CardError: the battery cannot be loaded.
    """
    root = root or shipped_boards()
    check_name("board", name, list_boards(root))
    path = root / name / PROTOCOL
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LeaderboardError(f"{path} cannot be read: {error}") from None
    return _read(text, path)


def write_board(results: Results, root: Path, name: str, *, headline: str = "", title: str = "") -> Board:
    """Make a board of the protocol that a run follows, so that others can be measured in the same way.

    Args:
        results: a complete run of a battery, or of corruptions at every severity.
        root: the folder of all boards; made where it is not there.
        name: of the new board and its folder.
        headline: the budget that orders it, in words; may be left out where there is only one.
        title: what it measures, in words; made of the data and the headline when empty.

    Raises:
        LeaderboardError: the name is none or taken, or other models could not be held to what the run did.
    """
    path = root / name / PROTOCOL
    if not NAME.fullmatch(name):
        raise LeaderboardError(f"a board cannot be called {name!r}; wanted small letters, digits, dots and dashes")
    if path.parent.exists():
        raise LeaderboardError(f"{path.parent} is there already; take another name, or remove it")
    if not results.complete:
        raise LeaderboardError(f"{results.folder} is not complete: the same robustvid attack goes on with it")
    table = protocol_of(results, headline=headline, title=title)
    text = protocol_text(table)
    board = _read(text, path)
    if faults := changed_attacks(board) + board.mismatches(results):
        raise LeaderboardError(f"{results.folder} is no protocol for a board: {'; '.join(faults)}")
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return board


def protocol_of(results: Results, *, headline: str = "", title: str = "") -> dict[str, Any]:
    """Return the protocol that a run follows, field by field, as :func:`write_board` has it.

    Raises:
        LeaderboardError: the run is of neither a battery nor corruptions, or the headline is none of its budgets.
    """
    fields = followed(results)
    if not (fields["battery"] or fields["corruptions"]):
        names = [attack["name"] for group in results.spec["attacks"] for attack in group]
        raise LeaderboardError(
            f"{results.folder} ran {', '.join(names)}: a board takes a battery, so that everybody runs the same; "
            "measure with --battery"
        )
    budgets = _words(fields["budgets"])
    headline = headline or (budgets[0] if len(budgets) == 1 else "")
    if headline not in budgets:
        raise LeaderboardError(
            f"{f'{headline!r} is no budget of the run' if headline else 'which budget orders the board'}; --headline "
            f"takes {', '.join(map(repr, budgets))}"
        )
    title = title or f"{fields['data']}: {'corruptions' if fields['corruptions'] else headline}"
    return {"title": title, "version": 1} | fields | {"budgets": budgets, "headline": headline}


def followed(results: Results) -> dict[str, Any]:
    """Return what of a protocol a run lays down: the fields of :class:`Board` that other runs are compared in.

    Raises:
        LeaderboardError: the spec is damaged.
    """
    spec = results.spec
    try:
        data, attacks = spec["data"], [attack for group in spec["attacks"] for attack in group]
        kinds = [attack["params"]["kind"] for attack in attacks if attack["function"] == "corruption"]
        return {
            "data": data["name"],
            "split": data["split"],
            "videos": data["videos"],
            "digest": data["digest"] or "",
            "clips": data["clips"],
            "seed": spec["seed"],
            "battery": spec["battery"] or "",
            "corruptions": tuple(dict.fromkeys(kinds)),
            "keys": tuple(attack["key"] for attack in attacks),
            "strategy": spec["strategy"],
            "precision": spec.get("precision", "exact"),
            "budgets": tuple(budget for threat in results.plan.threats for budget in threat.budgets),
            "clip": spec["model"]["clip"],
        }
    except (KeyError, TypeError) as error:
        raise LeaderboardError(f"{results.folder / 'spec.json'} is damaged: {error!r}") from None


def protocol_text(table: Mapping[str, Any]) -> str:
    """Return a protocol as the text of ``board.toml``."""
    fields = [(name, value) for name, value in table.items() if name != "clip" and value != ()]
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields]
    clip = [f"{name} = {json.dumps(value)}" for name, value in table["clip"].items()]
    return "\n".join([*lines, "", "[clip]", *clip, ""])


def _read(text: str, path: Path) -> Board:
    """Return the board of a protocol's text, which is or will be at this path."""
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise LeaderboardError(f"{path} cannot be read: {error}") from None
    table = {"battery": "", "corruptions": []} | table
    if faults := _faults(table):
        raise LeaderboardError(f"{path}: {'; '.join(faults)}")
    try:
        budgets = tuple(map(Budget.parse, table["budgets"]))
        headline = Budget.parse(table["headline"])
    except BudgetError as error:
        raise LeaderboardError(f"{path}: {error}") from None
    if headline not in budgets:
        raise LeaderboardError(f"{path}: the headline {table['headline']!r} is none of the budgets")
    rest = {
        key: value for key, value in table.items() if key not in {"budgets", "headline", "corruptions", "keys", "clip"}
    }
    return Board(
        name=path.parent.name,
        budgets=budgets,
        headline=headline,
        corruptions=tuple(table["corruptions"]),
        keys=tuple(table["keys"]),
        clip=table.get("clip"),
        folder=path.parent,
        **rest,
    )


def changed_attacks(board: Board) -> list[str]:
    """Return which cards of the battery are no longer those of the protocol, or why it cannot be loaded."""
    try:
        loaded = board.load_attacks()
    except (CardError, UnknownNameError) as error:
        return [str(error)]
    attacks = loaded.attacks if isinstance(loaded, Battery) else loaded
    faults = [
        f"the card {attack.name} is not the one of the protocol" for attack in attacks if attack.key not in board.keys
    ]
    if not faults and tuple(attack.key for attack in attacks) != board.keys:
        faults.append("the attacks are not those of the protocol, in their order")
    return faults


_ATTACK_FIELDS = {"battery", "corruptions", "keys", "strategy", "precision"}


def _plain(value: Any) -> Any:
    """Return a field as the protocol's file has it."""
    return list(value) if isinstance(value, tuple) else value


def _words(budgets: Iterable[Budget]) -> list[str]:
    return [budget.describe() for budget in budgets]


_Check = Callable[[Any], bool]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_FIELDS: dict[str, tuple[_Check, str]] = {
    "title": (_is_text, "text"),
    "version": (is_count, "a whole number"),
    "data": (_is_text, "the name of a dataset"),
    "split": (_is_text, "text"),
    "videos": (is_count, "a whole number"),
    "digest": (lambda value: isinstance(value, str), "text"),
    "clips": (is_count, "a whole number"),
    "seed": (is_count, "a whole number"),
    "battery": (lambda value: isinstance(value, str), "name@version"),
    "corruptions": (lambda value: value == [] or _is_texts(value), "kinds of corruption"),
    "keys": (_is_texts, "the keys of the battery's attacks"),
    "strategy": (_is_text, "bisect or every"),
    "precision": (_is_text, "fast or exact"),
    "budgets": (_is_texts, 'budgets in words, ["linf frame 4/255"]'),
    "headline": (_is_text, "one of the budgets"),
}


def _faults(table: Mapping[str, Any]) -> list[str]:
    faults = [f"{name!r} is missing" for name in _FIELDS if name not in table]
    faults += [f"unknown field {name!r}" for name in table if name not in {*_FIELDS, "clip"}]
    faults += [
        f"{name} is {table[name]!r}, wanted {wanted}"
        for name, (check, wanted) in _FIELDS.items()
        if name in table and not check(table[name])
    ]
    if bool(table.get("battery")) == bool(table.get("corruptions")):
        faults.append("wanted either a battery or corruptions")
    if not isinstance(table.get("clip", {}), dict):
        faults.append("clip is no table of frames, stride and size")
    return faults
