"""What is printed where standard output cannot take it as it is."""

from __future__ import annotations

import io
import sys

import pytest

from mpims.streams import show


@pytest.mark.parametrize(
    ("encoding", "errors", "printed"),
    [
        ("utf-8", "strict", b"\\udcff \xce\xbc"),
        ("ascii", "strict", b"\\udcff \\u03bc"),
        ("utf-8", "surrogateescape", b"\xff \xce\xbc"),
    ],
)
def test_a_character_that_standard_output_lacks_is_shown_as_its_number(
    encoding, errors, printed, monkeypatch
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    monkeypatch.setattr(sys, "stdout", stream)
    show("\udcff \u03bc")
    assert stream.buffer.getvalue() == printed + b"\n"
