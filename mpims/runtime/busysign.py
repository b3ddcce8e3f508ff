"""The sign that a silent master is at work: it reads a journal, or joins large values as the user does.

Ranks that get no answer look for it in the run directory before they take the master for hung. One that
is halted gives none, nor does one that turns in MPI for ever, as may happen when a rank dies.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path

FILE = "busy"
INTERVAL_S = 0.5
_WAITING = "mpims.runtime.transport"


class BusySign:
    """Within its ``with`` a file is touched now and then while this thread is anywhere but in a transport.

    Parameters
    ----------
    folder
        The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="mpims-busy", daemon=True)

    def __enter__(self) -> BusySign:
        self._worker = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(INTERVAL_S)  # it may wait for a dead file server
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _show(self) -> None:
        while not self._is_over.wait(INTERVAL_S):
            frame = sys._current_frames().get(self._worker)
            if frame is not None and not frame.f_globals.get("__name__", "").startswith(_WAITING):
                with suppress(OSError):  # a file server that is away: the next time may reach it
                    self._path.touch()


def last_shown(run_dir: str) -> int | None:
    """When the sign of a run's master was given last, in ns by the file's clock; None if never."""
    try:
        return Path(run_dir, FILE).stat().st_mtime_ns
    except OSError:
        return None
