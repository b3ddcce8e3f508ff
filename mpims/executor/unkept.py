"""What a master of tasks has in place of a run directory: nothing is kept, results are passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpims.core.chunks import Range, Result
from mpims.core.events import Action, Event
from mpims.errors import MpimsError
from mpims.executor.cargo import Batch
from mpims.runtime.tracing import Tracing
from mpims.runtime.wire import Buffer, SkippedItem
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.commits import Failure

Deliver = Callable[[Result, Any, Sequence[Range], Sequence[Failure]], None]
"""Takes what was committed: as `mpims.storage.checkpoint.Checkpoint.commit`."""


class Unkept(Checkpoint):
    """Passes on what is committed."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def commit(
        self,
        head: Result,
        payload: Any,
        buffers: Sequence[Buffer] | None,
        ranges: Sequence[Range],
        failures: Sequence[Failure] = (),
    ) -> None:
        self._deliver(head, payload, ranges, failures)

    def assigned(self, ranges: Sequence[Range]) -> None:
        """Write nothing down."""

    @property
    def is_behind(self) -> bool:
        """Nothing is written."""
        return False

    def say(self) -> None:
        """Write nothing down."""

    def finish(self) -> None:
        """Write nothing down."""

    def note(self, stats: Mapping[str, Any]) -> None:
        """Write nothing down."""

    def poll(self, now: float) -> None:
        """Write nothing down."""


class Untraced(Tracing):
    """A trace of nothing."""

    def __init__(self) -> None:
        pass

    def result(self, rank: int, head: bytes, now: float) -> None:
        """Keep nothing."""

    def served(self, seconds: float) -> None:
        """Keep nothing."""

    def sent(self, rank: int, assigns: bytes) -> None:
        """Keep nothing."""

    def joined(self, rank: int, host: str, now: float) -> None:
        """Keep nothing."""

    def skipped(self, rank: int, items: Sequence[SkippedItem], now: float) -> None:
        """Keep nothing."""

    def told(self, event: Event, now: float) -> None:
        """Keep nothing."""

    def said(self, action: Action) -> None:
        """Keep nothing."""

    def look(self) -> None:
        """Keep nothing."""

    def flush(self, now: float) -> None:
        """Keep nothing."""

    def close(self, error: MpimsError | None) -> None:
        """Keep nothing."""


class PassedOn:
    """The results of tasks have no place: they are passed on as they come, in any order."""

    n_given = n_written = 0

    def units(self, payload: Any, heads: Sequence[Result]) -> Sequence[tuple[Range, ...] | None]:
        """Each can be cut between any two."""
        return (None,) * len(heads)

    def select(self, payload: Any, heads: Sequence[Result], first: int, last: int) -> Any:
        """As `mpims.storage.results.Results.select`."""
        batch = Batch(*payload)
        if last - first == len(heads):
            return batch
        at = sum([head.stop - head.start for head in heads[:first]])
        return batch[at : at + sum([head.stop - head.start for head in heads[first:last]])]

    def commit(self, head: Result, payload: Any, ranges: Sequence[Range]) -> None:
        """They were passed on before."""

    def keeps(self, payload: Any) -> bool:
        """There is no file."""
        return False

    @property
    def head(self) -> bytes:
        """There is no file."""
        return b""

    def forget(self) -> None:
        """There is no file."""

    def snapshot(self) -> Any:
        """Nothing was kept."""
        return None

    def reopen(self) -> bool:
        """Nothing was kept."""
        return False

    def finish(self) -> None:
        """Nothing was kept."""

    def sync(self) -> None:
        """Nothing was kept."""

    def close(self, skipped: Sequence[int] = ()) -> Any:
        """There is no whole result."""
        raise NotImplementedError

    def release(self) -> None:
        """Nothing is open."""
