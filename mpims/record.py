"""What is written of a run, as it goes on and at its end: ranks, figures, the items that were skipped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.core.scheduler import Scheduler
from mpims.digest import digest
from mpims.errors import MpimsError, Stopped, brief, describe
from mpims.processes import this_process
from mpims.report.wording import with_hosts
from mpims.runtime.desk import MasterRecord
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.rundir import FAILED, MANIFEST, SUMMARY, write_json

if TYPE_CHECKING:
    from mpims.report.summary import Summary

RANKS_INTERVAL_S = 5.0
"""The ranks that have joined are written down at most this often before all have."""


class RunRecord:
    """The record of one run by one of its masters; the figures of those before are in it.

    Parameters
    ----------
    folder
        The run directory.
    manifest
        What the run is; the ranks are added to it.
    checkpoint, scheduler
        Where the figures are.
    about
        What stands in the summary and does not change: job, n_items, n_ranks, n_workers, policy.
    own_rank
        The master's.
    took_over
        Whether it took the run over from a master that died.
    n_dead
        Gives how many ranks have died since they were started, masters among them.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        checkpoint: Checkpoint,
        scheduler: Scheduler,
        *,
        about: Mapping[str, Any],
        own_rank: int,
        took_over: bool,
        n_dead: Callable[[], int],
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._checkpoint = checkpoint
        self._scheduler = scheduler
        self._about = about
        self._own_rank = own_rank
        self._past = _up_to_now(checkpoint.past.stats) if took_over else checkpoint.past.stats
        self._n_dead = n_dead
        self._n_known = _n_known(self._past, manifest, n_dead()) if took_over else 0
        self._began = time.monotonic()
        self._ranks_written = 0.0

    def write_ranks(self, record: MasterRecord) -> None:
        """Write down who the ranks are: the others may have to fence one without this master."""
        now = time.monotonic()
        all_joined = len(record.workers) >= self._about["n_workers"]
        if not all_joined and now - self._ranks_written < RANKS_INTERVAL_S:
            return
        self._ranks_written = now
        ranks = {str(rank): worker.process.as_dict() for rank, worker in record.workers.items()}
        own = {str(self._own_rank): this_process().as_dict()}
        self._manifest["ranks"] = {**self._manifest.get("ranks", {}), **own, **ranks}
        self._checkpoint.note(self.figures(record))
        write_json(self._folder / MANIFEST, self._manifest)

    def figures(self, record: MasterRecord) -> dict[str, Any]:
        """The figures of this master and all before it."""
        counters, past, n_workers = self._scheduler.counters, self._past, self._about["n_workers"]
        counts = counters.by_name()
        wall_s = record.wall_s or time.monotonic() - self._began
        ranks = record.workers | record.busy_s
        busy_s = Counter({str(rank): record.busy_s.get(rank, 0.0) for rank in ranks})
        busy_s.update(past.get("busy_s", {}))
        return {
            **{name: count + past.get(name, 0) for name, count in counts.items()},
            "n_masters": len(self._manifest.get("taken_over", ())),
            "n_resumed": len(self._manifest.get("resumed", ())),
            "n_workers": n_workers,
            "wall_s": wall_s + past.get("wall_s", 0.0),
            "workers_s": wall_s * n_workers + past.get("workers_s", 0.0),
            "busy_s": dict(busy_s),
            "master_cpu_s": record.cpu_s + past.get("master_cpu_s", 0.0),
            # Not the scheduler's count: of a rank that died with a master no event comes to the next one.
            "n_lost": max(0, self._n_dead() - self._n_known) + past.get("n_lost", 0),
            "n_dead": self._n_dead(),
            "noted_at": time.time(),
        }

    def write(
        self,
        record: MasterRecord,
        items: Sequence[Any],
        *,
        value: Any = None,
        path: Path | None = None,
        error: BaseException | None = None,
    ) -> Summary:
        """Write what is known at the end, and give the summary.

        Parameters
        ----------
        items
            The job's, to show those that were skipped.
        value, path
            The whole result and its file, if the run came so far ...
        error
            ... or what ended it.
        """
        from mpims.report.summary import balance  # at the end, not before the first chunk

        figures = self.figures(record)
        del figures["n_dead"]  # it is for the next master alone
        efficiency, imbalance = balance(list(figures["busy_s"].values()), figures["workers_s"])
        failures = self._checkpoint.failures
        summary: Summary = {
            **(_done(value, path) if error is None else _ended(error)),
            **self._about,  # type: ignore[typeddict-item]
            **figures,
            "n_done": self._checkpoint.n_done,
            "n_skipped": len(failures),
            "efficiency": efficiency,
            "imbalance": imbalance,
            "policy_reason": with_hosts(
                self._scheduler.explain(), {rank: worker.host for rank, worker in record.workers.items()}
            ),
        }
        if failures:
            entries = [
                {**failures[item]._asdict(), "value": _item_text(items, item)} for item in sorted(failures)
            ]
            write_json(self._folder / FAILED, {"run_id": self._manifest["run_id"], "items": entries})
        write_json(self._folder / SUMMARY, dict(summary))
        write_json(self._folder / MANIFEST, self._manifest)
        return summary


def _n_known(noted: dict[str, Any], manifest: dict[str, Any], n_dead: int) -> int:
    """Of the dead ranks that a new master finds, those that are masters or in what the last one noted.

    Examples
    --------
    >>> noted = {"n_dead": 1, "n_masters": 0, "n_resumed": 0}
    >>> _n_known(noted, {"taken_over": [{}]}, 4)  # two workers died unnoted
    2
    >>> _n_known(noted, {"taken_over": [{}], "resumed": [{}]}, 3)  # it was noted before the ranks started
    1
    """
    if not manifest.get("taken_over"):
        return n_dead  # the master before had not begun
    is_of_this_start = noted.get("n_resumed") == len(manifest.get("resumed", ()))
    n_noted: int = noted.get("n_dead", 0) if is_of_this_start else 0
    n_masters: int = len(manifest["taken_over"]) - noted.get("n_masters", 0)
    return n_noted + n_masters


def _up_to_now(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures that the last master noted, with the time until another took over."""
    if "noted_at" not in figures:
        return figures
    gap_s = max(0.0, time.time() - figures["noted_at"])
    wall_s, workers_s = figures["wall_s"] + gap_s, figures["workers_s"] + gap_s * figures["n_workers"]
    return {**figures, "wall_s": wall_s, "workers_s": workers_s}


def _done(value: Any, path: Path | None) -> Summary:
    return {"status": "done", "result_file": str(path), "result_digest": _digest(value)}


def _ended(error: BaseException) -> Summary:
    status = "stopped" if isinstance(error, Stopped) else "failed"
    return {"status": status, "error": error.message if isinstance(error, MpimsError) else repr(error)}


def _item_text(items: Sequence[Any], item: int) -> str:
    try:
        return brief(items[item], 200)
    except Exception as error:  # an item that cannot be shown, for reasons of its own
        return f"(cannot be shown: {describe(error)})"


def _digest(value: Any) -> str:
    try:
        return digest(value)
    except Exception as error:  # an object that cannot be taken apart, for reasons of its own
        return f"none: {describe(error)}"
