"""What a command is for, as its help shows it: as wide as the terminal."""

from __future__ import annotations

import argparse
import shutil
from typing import Any

WIDEST = 100
"""Lines are no wider than this: it is easier to read."""


class HelpText(argparse.RawDescriptionHelpFormatter):
    """Wraps paragraphs; one that has indented lines, such as commands to be typed, stays as it is."""

    def __init__(self, prog: str, **fields: Any) -> None:
        fields["width"] = min(fields.get("width") or shutil.get_terminal_size().columns - 2, WIDEST)
        super().__init__(prog, **fields)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width).split("\n")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(wrapped(paragraph, width) for paragraph in paragraphs) + "\n"


def wrapped(paragraph: str, width: int) -> str:
    """A paragraph in lines of that width; options stay whole.

    Examples
    --------
    >>> print(wrapped("one two\\nthree --on-error four", 20))
    one two three
    --on-error four
    >>> print(wrapped("  typed   as it\\n  stands", 10))
      typed   as it
      stands
    """
    if any(line.startswith(" ") for line in paragraph.split("\n")):
        return paragraph
    import textwrap  # for these lines alone

    return textwrap.fill(" ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False)
