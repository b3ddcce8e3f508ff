"""The doctor's answer as people read it: lines that fit the terminal, theme by theme."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from mpims.doctor.finding import Finding, Verdict

_COLOURS = {Verdict.GOOD: "32", Verdict.DOUBTFUL: "33", Verdict.BAD: "31;1"}
_VERDICT_WIDTH = max(len(verdict.value) for verdict in Verdict)
_NAME_WIDTH = 14
_LEAST_WIDTH = 24  # of the text: narrower than this nothing is readable, and lines run over


def finding_lines(finding: Finding, width: int, *, coloured: bool = False) -> list[str]:
    """A finding, and its cure below it.

    Parameters
    ----------
    width
        Columns of the terminal.
    coloured
        Whether the verdict is shown in colour.

    Examples
    --------
    >>> finding = Finding("MPI", "fault tier", "no ULFM", Verdict.DOUBTFUL, "mpirun --with-ft ulfm")
    >>> print("\\n".join(finding_lines(finding, 80)))
      doubtful  fault tier      no ULFM
                                -> mpirun --with-ft ulfm
    """
    word = f"{finding.verdict.value:{_VERDICT_WIDTH}}"
    if coloured:
        word = f"\033[{_COLOURS[finding.verdict]}m{word}\033[0m"
    indent = " " * (2 + _VERDICT_WIDTH + 2 + _NAME_WIDTH + 2)
    text_width = max(width - len(indent), _LEAST_WIDTH)
    lines = _wrapped(finding.value, text_width)
    if finding.cure:
        first, *further = _wrapped(finding.cure, text_width - 3)
        lines += [f"-> {first}", *(f"   {line}" for line in further)]
    head = f"  {word}  {finding.name:{_NAME_WIDTH}}  "
    return [head + lines[0], *(indent + line for line in lines[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines; paths and options stay whole, so that they can be copied."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def closing_line(findings: Sequence[Finding]) -> str:
    """How many there are of each verdict, the worst first.

    Examples
    --------
    >>> closing_line([Finding("MPI", "library", "Open MPI 5.0.11")])
    '1 good'
    """
    counts = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{counts[v]} {v.value}" for v in reversed(list(Verdict)) if counts[v])
