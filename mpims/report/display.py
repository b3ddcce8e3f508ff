"""The display of a terminal, renewed in place.

It must leave a clean terminal however the run ends, and never hold the run up: nothing is drawn while the
terminal takes nothing (Ctrl-S, a connection that hangs), the cursor stays visible, and no thread draws.
"""

from __future__ import annotations

import os
import select
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from mpims.report.status import Status, is_short_of_time, status_lines
from mpims.report.views import View

INTERVAL_S = 0.5
WIDEST = 100
"""Lines are no wider than this: it is easier to read, and a terminal made narrower cuts less."""
_MOST_UNSAID = 100


class LiveDisplay(View):
    """Shows the status on a terminal.

    Parameters
    ----------
    stream
        The terminal.
    """

    interval_s = INTERVAL_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        width, height = self._size()
        self._console = Console(file=stream, width=width, height=height, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._widths: list[int] = []  # of the lines that were drawn last
        self._unsaid: list[str] = []

    def show(self, status: Status) -> None:
        is_first = self._live is None
        if (is_first and status.elapsed_s < self.interval_s) or not self._takes_text():
            return
        live = self._fit()
        self._say_unsaid()
        self._draw(live, status)

    def note(self, text: str) -> None:
        self._unsaid = [*self._unsaid, text][-_MOST_UNSAID:]
        if self._takes_text():
            if self._live is not None:
                self._fit()
            self._say_unsaid()

    def end(self) -> None:
        if not self._takes_text():
            return
        self._say_unsaid()
        if self._live is not None:
            self._fit().stop()
            self._live = None

    # ------------------------------------------------------------------------ drawing

    def _fit(self) -> Live:
        """Go along with the terminal's size.

        A terminal that is made narrower breaks what stands there into more lines, which are taken back.
        (The few that cut instead lose as many older lines.)
        """
        width, height = self._size()
        if width < self._console.width:
            n_rows = sum(max(1, -(-its // width)) for its in self._widths)
            self._erase_upward(n_rows - len(self._widths))
        self._console.width, self._console.height = width, height
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._console.show_cursor()  # or a run that is killed would leave it hidden
        return self._live

    def _draw(self, live: Live, status: Status) -> None:
        width, height = self._console.width, self._console.height
        room = min(width, WIDEST) - 1
        title, *rest = (Text(line) for line in status_lines(status, room))
        title.stylize("bold")
        if is_short_of_time(status):
            rest[1].stylize("red")
        if status.lost or status.suspects or status.n_skipped:
            rest[2].stylize("yellow")
        for text in (title, *rest):
            text.truncate(room)  # by cells: some characters take two
        shown: list[RenderableType] = [title, _bar(status.n_done / status.n_items, room), *rest]
        del shown[max(1, height - 2) :]
        self._widths = [text.cell_len if isinstance(text, Text) else room for text in shown] + [0]
        # The cursor rests on a line of its own: what others print begins there.
        live.update(Group(*shown, Text("")), refresh=True)

    def _say_unsaid(self) -> None:
        for text in self._unsaid:
            self._console.print(Text(f"mpims: {text}"))
        self._unsaid = []

    def _erase_upward(self, n_rows: int) -> None:
        up = (ControlType.CURSOR_UP, 1)
        for _ in range(n_rows):
            self._console.control(Control((ControlType.ERASE_IN_LINE, 2), up))

    # ----------------------------------------------------------------------- terminal

    def _takes_text(self) -> bool:
        poller = select.poll()
        poller.register(self._stream, select.POLLOUT)
        return any(events & select.POLLOUT for _, events in poller.poll(0))

    def _size(self) -> tuple[int, int]:
        """Columns and lines of this terminal, which need not be that of standard output."""
        columns, lines = os.get_terminal_size(self._stream.fileno())
        return columns or 80, lines or 24


def _bar(share: float, width: int) -> Table:
    """A bar, and the share behind it; never 100 % before the end."""
    row = Table.grid(padding=(0, 1))
    percent = f"{int(100 * share)}%"
    row.add_row(ProgressBar(total=1.0, completed=share, width=max(1, width - 6)), Text(percent))
    return row
