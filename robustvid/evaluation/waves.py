"""A sweep's clips, wave by wave: what is due is measured and noted until nothing is left to learn."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from robustvid.contracts import VideoDataset, clip_seed
from robustvid.data.videos import IndexedVideos
from robustvid.errors import DecodeError, RunError
from robustvid.evaluation.cards import Attack
from robustvid.evaluation.evidence import keep_clip
from robustvid.evaluation.journal import Journal, Row, read_rows
from robustvid.evaluation.plan import Pair, Plan, by_clip
from robustvid.evaluation.probe import number_on
from robustvid.evaluation.results import AUDIT, LEFT_OUT, ROWS
from robustvid.evaluation.search import Hunt, Try
from robustvid.evaluation.spec import write_json
from robustvid.evaluation.threats import Threat
from robustvid.evaluation.verdict import Judge, LoadedClip, load_clip
from robustvid.ranks import Ranks

Item = TypeVar("Item")
log = logging.getLogger("robustvid")

# Clips; the order of a search learns from waves that are over, so no option may change them. Larger ones fill more of
# the calls of a GPU; on a CPU they win nothing that could be measured.
FIRST_WAVE, WAVE = 16, {"cpu": 64, "cuda": 256}


class Progress(NamedTuple):
    """How far a sweep is.

    Attributes:
        done: clips finished, counting parts of clips.
        total: clips in all.
        standing: of the first ``judged`` clips, how many are right and unbroken at ``budget``.
        judged: clips of the waves that are over.
        budget: the middle budget of the first threat, in words.
    """

    done: float
    total: int
    standing: int
    judged: int
    budget: str


class _Share(NamedTuple):
    """What one process tells the others of a wave that is over; ``criticals`` as :class:`Hunt` counts them."""

    judged: int
    standing: int
    criticals: dict[Pair, list[int]]
    left_out: dict[int, dict[str, str]]


class Sweep:
    """One run in progress, or one process's share of it."""

    def __init__(  # noqa: PLR0917  the parts of one evaluation, put together in one place
        self,
        data: VideoDataset,
        plan: Plan,
        groups: Sequence[Sequence[Attack]],
        judge: Judge,
        journal: Journal,
        audits: Journal,
        audit: float,
        folder: Path,
        ranks: Ranks,
        *,
        skip: bool,
        keep: int,
    ) -> None:
        self.data, self.plan, self.groups, self.judge, self.ranks = data, plan, groups, judge, ranks
        self.journal, self.audits, self.audit, self.folder = journal, audits, audit, folder
        self.skip, self.keep = skip, keep
        self.left_out: dict[int, dict[str, str]] = {}
        if ranks.first:
            (folder / LEFT_OUT).unlink(missing_ok=True)  # what could not be read then may be mended now
        self.rows = by_clip(read_rows(folder / ROWS))
        self.audited = {(row.index, plan.place(row)) for row in read_rows(folder / AUDIT)}
        self.loaded: dict[int, LoadedClip] = {}
        self.coming: dict[int, Future[LoadedClip]] = {}
        self.criticals = self._no_criticals()

    def run(self, clips: Sequence[int], stop: threading.Event, progress: Callable[[Progress], None] | None) -> None:
        """Measure what the journal does not hold yet, in waves of clips, so that memory stays flat.

        Each process takes its share of a wave, and waits for the others at its end to learn what they found.

        While a wave is attacked, a thread of its own reads the video files of the next. Datasets of others are read
        when they are needed: they need not bear a second thread.
        """
        shown = frozenset(clips[: self.keep])
        standing = before = 0
        waves = [clips[:FIRST_WAVE], *split(clips[FIRST_WAVE:], number_on(self.judge.device, WAVE))]
        reader = ThreadPoolExecutor(1)
        try:
            for wave, following in zip(waves, [*waves[1:], ()], strict=True):
                if isinstance(self.data, IndexedVideos):
                    new = (index for index in self.ranks.share(following) if index not in self.rows)
                    self.coming |= {index: reader.submit(self._read, index) for index in new}
                read = self.readable(self.ranks.share(wave))
                for done in itertools.chain(self._measure(read, shown), self._try_skipped(read)):
                    if progress:
                        everywhere = before + done * len(wave) / len(self.ranks.share(wave))
                        progress(self._progress(len(clips) - len(self.left_out), everywhere, before, standing))
                    if stop.is_set():
                        break
                judged, stand = self._meet(None if stop.is_set() else read)
                before, standing = before + judged, standing + stand
        finally:
            reader.shutdown(cancel_futures=True)

    def _meet(self, read: Sequence[int] | None) -> tuple[int, int]:
        """Finish a wave together with the other processes, and learn from it.

        Args:
            read: the clips that this process has measured; None where it was stopped.

        Returns:
            How many clips of the wave were measured, and how many stand in the middle budget of the first threat.

        Raises:
            KeyboardInterrupt: a process was stopped.
        """
        criticals = self._no_criticals()
        standing = sum(self._finish(index, criticals) for index in read or ())
        told = None if read is None else _Share(len(read), standing, criticals, self.left_out)
        shares = [share for share in self.ranks.gather(told) if share]
        if len(shares) < self.ranks.size:
            raise KeyboardInterrupt
        for share in shares:
            for pair, counts in share.criticals.items():
                self.criticals[pair] = [sum(both) for both in zip(self.criticals[pair], counts, strict=True)]
            if share.left_out.keys() - self.left_out:
                self.left_out |= share.left_out
                self._note_left_out()
        return sum(share.judged for share in shares), sum(share.standing for share in shares)

    def readable(self, indices: Sequence[int]) -> Sequence[int]:
        """Return those clips that can be read, where the others are to be skipped."""
        return [index for index in indices if index in self.rows or self._can_read(index)] if self.skip else indices

    def _can_read(self, index: int) -> bool:
        if index not in self.left_out:
            try:
                self.load(index)
            except DecodeError as error:
                self.left_out[index] = {"file": error.file, "reason": error.reason}
                self._note_left_out()
                log.warning("left out: %s", error)
        return index not in self.left_out

    def _note_left_out(self) -> None:
        if self.ranks.first:
            write_json(self.folder / LEFT_OUT, list(self.left_out.values()))

    def load(self, index: int) -> LoadedClip:
        """Return one clip, decoded once a wave; refuse one that is not what the journal measured.

        Raises:
            RunError: the pixels or the label have changed since.
        """
        if index not in self.loaded:
            coming = self.coming.pop(index, None)
            clip = self._read(index) if coming is None else coming.result()
            for row in self.rows.get(index, [])[:1]:
                if (row.digest, row.label) != (clip.digest, clip.label):
                    raise RunError(
                        f"{clip.sample} is not the clip that this run has measured; start again with --fresh"
                    )
            self.loaded[index] = clip
        return self.loaded[index]

    def _read(self, index: int) -> LoadedClip:
        return load_clip(self.data, index, self.plan.clip)

    def _measure(self, wave: Sequence[int], shown: frozenset[int]) -> Iterator[float]:
        """Measure a wave; yield after every batch how much of it is done, in clips."""
        new = [index for index in wave if index not in self.rows]
        for batch in split(new, self.judge.batch_size):
            self._note(self.judge.clean([self.load(index) for index in batch]))
            yield 0
        right = [index for index in wave if self._correct(index)]
        hunts = {index: self.plan.hunts(self.rows[index], self.criticals) for index in right}
        for pair in self.plan.pairs():
            for _ in self._hunt(pair, hunts, shown):
                yield sum(_done(hunts[index]) if index in hunts else 1.0 for index in wave)

    def _hunt(self, pair: Pair, hunts: dict[int, dict[Pair, Hunt]], shown: frozenset[int]) -> Iterator[None]:
        threat = self.plan.threats[pair.threat]
        while tries := {index: attempt for index, own in hunts.items() if (attempt := own[pair].next())}:
            ((attack, _),) = Counter(attempt.attack for attempt in tries.values()).most_common(1)
            batch = [index for index, attempt in tries.items() if attempt.attack == attack][: self.judge.batch_size]
            found = self.judge.attack(
                self.groups[pair.group][attack],
                threat,
                [self.load(index) for index in batch],
                [tries[index].cell for index in batch],
                [self._clean(index).predicted for index in batch],
            )
            self._note([result.row for result in found])
            for index, result in zip(batch, found, strict=True):
                if index in shown and (not result.row.robust or _unbroken(hunts[index], pair.threat)):
                    keep_clip(
                        self.folder / "clips", threat.name, result.row, self.loaded[index].pixels, result.adversarial
                    )
                self.plan.record(hunts[index][pair], pair, tries[index], result.row)
            yield

    def _try_skipped(self, wave: Sequence[int]) -> Iterator[float]:
        """Measure some of what the search skipped, from scratch; yield after every batch the size of the wave."""
        due: dict[tuple[Pair, int], list[tuple[int, int]]] = {}
        for index in filter(self._correct, wave):
            for pair, hunt in self.plan.hunts(self.rows[index]).items():
                for attempt in hunt.skipped:
                    if self._drawn(index, pair, attempt) and (index, (pair, attempt)) not in self.audited:
                        due.setdefault((pair, attempt.attack), []).append((index, attempt.cell))
        for (pair, attack), jobs in due.items():
            for part in split(jobs, self.judge.batch_size):
                found = self.judge.attack(
                    self.groups[pair.group][attack],
                    self.plan.threats[pair.threat],
                    [self.load(index) for index, _ in part],
                    [cell for _, cell in part],
                    [self._clean(index).predicted for index, _ in part],
                )
                self.audits.append([result.row for result in found])
                yield len(wave)

    def _drawn(self, index: int, pair: Pair, attempt: Try) -> bool:
        attack, budget = self.groups[pair.group][attempt.attack], self.plan.threats[pair.threat].budgets[attempt.cell]
        drawn = clip_seed(self.judge.seed, self._clean(index).sample, f"audit {attack.key} {budget.describe()}")
        return drawn < self.audit * 2**63

    def _note(self, rows: Sequence[Row]) -> None:
        self.journal.append(rows)
        for row in rows:
            self.rows.setdefault(row.index, []).append(row)

    def _clean(self, index: int) -> Row:
        return self.rows[index][0]

    def _correct(self, index: int) -> bool:
        return self._clean(index).robust

    def _no_criticals(self) -> dict[Pair, list[int]]:
        return {pair: [0] * (len(self.plan.threats[pair.threat].budgets) + 1) for pair in self.plan.pairs()}

    def _finish(self, index: int, criticals: dict[Pair, list[int]]) -> bool:
        """Learn from a clip, let go of it, and return whether it stands in the middle budget of the first threat."""
        self.loaded.pop(index, None)
        rows = self.rows.pop(index)
        if not rows[0].robust:
            return False
        hunts = self.plan.hunts(rows)
        for pair, hunt in hunts.items():
            criticals[pair][hunt.critical] += 1
        return all(hunt.broken_by[_middle(hunt.threat)] < 0 for pair, hunt in hunts.items() if pair.threat == 0)

    def _progress(self, clips: int, done: float, judged: int, standing: int) -> Progress:
        threat = self.plan.threats[0]
        return Progress(done, clips, standing, judged, threat.budgets[_middle(threat)].describe())


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return consecutive parts of at most ``size`` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _done(hunts: dict[Pair, Hunt]) -> float:
    return sum(hunt.done for hunt in hunts.values()) / len(hunts)


def _unbroken(hunts: dict[Pair, Hunt], threat: int) -> bool:
    return all((hunt.broken_by < 0).all() for pair, hunt in hunts.items() if pair.threat == threat)


def _middle(threat: Threat) -> int:
    return len(threat.budgets) // 2
