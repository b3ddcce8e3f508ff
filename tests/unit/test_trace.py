"""A trace is read as it was written, or refused in one line that says why."""

from __future__ import annotations

import numpy as np
import pytest

from mpims.errors import UsageError
from mpims.storage.trace import HEAD, MAGIC, PART, TRACE, encode_head, read_trace

ROWS = np.array([(1, 17, 0, 64, 0.5, 0.01, 2e-5), (2, 1 << 40, 64, 100, 0.25, 0.02, 3e-5)], PART)


def written(folder, content: bytes):
    (folder / TRACE).write_bytes(content)
    return folder


def test_a_trace_is_read_as_it_was_written(tmp_path):
    read = read_trace(written(tmp_path, encode_head() + ROWS.tobytes()))
    assert read.dtype == PART
    assert read.tolist() == ROWS.tolist()


def test_the_format_is_what_its_file_says():
    """Files of earlier versions stay readable only as long as this holds: else raise FORMAT."""
    assert encode_head().hex() == "4d50494d53540d0a0100000034000000"
    assert ROWS[:1].tobytes().hex() == (
        "01000000" "1100000000000000" "0000000000000000" "4000000000000000"
        "000000000000e03f" "7b14ae47e17a843f" "f168e388b5f8f43e"
    )  # fmt: skip


def test_a_trace_without_records_is_empty(tmp_path):
    assert len(read_trace(written(tmp_path, encode_head()))) == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "was cut: it has 0 bytes of a head of 16"),
        (encode_head()[:10], "was cut: it has 10 bytes of a head of 16"),
        (encode_head() + ROWS.tobytes()[:-5], "its last record has 47 bytes of 52; .* cut it to 68 bytes"),
        (b"\x93NUMPY" + bytes(100), "is no trace: it begins with"),
        (HEAD.pack(MAGIC, 2, PART.itemsize), "has format 2, this mpims reads format 1"),
        (HEAD.pack(MAGIC, 1, 60), "is damaged: records of 60 bytes, in format 1 they have 52"),
    ],
)
def test_what_is_no_whole_trace_of_this_version_is_refused(content, text, tmp_path):
    with pytest.raises(UsageError, match=text) as caught:
        read_trace(written(tmp_path, content))
    assert "\n" not in caught.value.message


def test_a_run_without_a_trace_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no trace in"):
        read_trace(tmp_path)
    (tmp_path / TRACE).mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        read_trace(tmp_path)
