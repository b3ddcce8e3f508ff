"""Where the status of a run is shown: nowhere, or in a log. For that of a terminal see `display`."""

from __future__ import annotations

from typing import TextIO

from mpims.report.status import Status, log_line

LOOK_INTERVAL_S = 1.0
FIRST_LOG_INTERVAL_S = 5.0


class View:
    """Where the status is shown; this one shows it nowhere."""

    interval_s = LOOK_INTERVAL_S

    def show(self, status: Status) -> None:
        """Show the status; raises OSError if nobody is there any more."""

    def note(self, text: str) -> None:
        """Say something once."""

    def end(self) -> None:
        """Leave nothing behind that is no longer true."""


class LogLines(View):
    """A line now and then: after 5, 10 and 20 s, and then every `every_s` seconds."""

    def __init__(self, stream: TextIO, every_s: float) -> None:
        self._stream = stream
        self._every_s = every_s
        self._next_s = min(FIRST_LOG_INTERVAL_S, every_s)
        self.interval_s = min(LOOK_INTERVAL_S, every_s)

    def show(self, status: Status) -> None:
        late_s = status.elapsed_s - self._next_s
        if late_s >= 0:
            while late_s >= 0 and self._next_s < self._every_s:
                late_s -= self._next_s
                self._next_s *= 2
            if late_s >= 0:
                self._next_s += (late_s // self._every_s + 1) * self._every_s
            self.note(log_line(status))

    def note(self, text: str) -> None:
        print(f"mpims: {text}", file=self._stream, flush=True)
