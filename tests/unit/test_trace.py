"""A trace is read as it was written, up to where it was cut, or refused in one line that says why."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mpims.errors import UsageError
from mpims.storage.trace import (
    HEAD,
    MAGIC,
    PART,
    SENT,
    TRACE,
    What,
    check_records,
    encode_block,
    encode_head,
    encode_notes,
    read_trace,
)

SENT_ROWS = np.array([(1, 17, 0, 64, 9.5), (2, 1 << 40, 64, 100, 9.75)], SENT)
ROWS = np.array(
    [
        (1, 17, 0, 64, 0.5, 0.25, 0.125, 2**-10, 3.5, 10.0),
        (2, 1 << 40, 64, 100, 0.25, 0.5, 0.0, 2**-9, 7.5, 10.5),
    ],
    PART,
)
BEGAN = encode_notes([{"what": "began", "t": 9.0, "cause": "started", "rank": 0, "wall": 1.7e9}])
JOINED = encode_notes(
    [{"what": "joined", "t": 9.25, "rank": 2, "host": "a"}, {"what": "unheard of", "t": 1}]
)
BLOCKS = [JOINED, encode_block(b"SENT", SENT_ROWS.tobytes()), encode_block(b"PART", ROWS.tobytes())]
WHOLE = encode_head() + BEGAN + b"".join(BLOCKS)


def changed(row: int, **values) -> bytes:
    rows = ROWS.copy()
    for name, value in values.items():
        rows[name][row] = value
    return encode_block(b"PART", rows.tobytes())


def written(folder, content: bytes):
    (folder / TRACE).write_bytes(content)
    return folder


def test_a_trace_is_read_as_it_was_written(tmp_path):
    trace = read_trace(written(tmp_path, WHOLE + BEGAN + BLOCKS[2]))
    first, second = trace.sections
    assert first.sent.tolist() == SENT_ROWS.tolist()
    assert first.parts.tolist() == second.parts.tolist() == ROWS.tolist()
    assert [event.what for event in first.events] == [What.BEGAN, What.JOINED]
    assert (first.events[1].rank, first.events[1].t, first.events[1].about["host"]) == (2, 9.25, "a")
    assert trace.parts.tolist() == [*ROWS.tolist(), *ROWS.tolist()]
    assert trace.n_cut_bytes == 0


def test_the_format_is_what_its_file_says():
    """Files of earlier versions stay readable only as long as this holds: else raise FORMAT."""
    assert encode_head().hex() == "4d50494d53540d0a02000000"
    assert encode_block(b"SENT", b"ab").hex() == "53454e54" "02000000" "6162"  # fmt: skip
    assert SENT_ROWS[:1].tobytes().hex() == (
        "01000000" "1100000000000000" "0000000000000000" "4000000000000000" "0000000000002340"
    )  # fmt: skip
    assert ROWS[:1].tobytes().hex() == (
        "01000000" "1100000000000000" "0000000000000000" "4000000000000000"
        "000000000000e03f" "0000803e" "0000003e" "0000803a" "0000000000000c40" "0000000000002440"
    )  # fmt: skip


def test_a_trace_without_blocks_is_empty(tmp_path):
    trace = read_trace(written(tmp_path, encode_head()))
    assert trace.sections == []
    assert len(trace.parts) == 0


def test_a_trace_that_was_cut_is_read_up_to_there(tmp_path):
    """At every byte: what is whole before it is read, and nothing is made up."""
    ends = np.cumsum([len(encode_head() + BEGAN), *map(len, BLOCKS)])
    for n_bytes in range(HEAD.size, len(WHOLE)):
        trace = read_trace(written(tmp_path, WHOLE[:n_bytes]))
        n_whole = int((ends <= n_bytes).sum())
        events = [event.what for section in trace.sections for event in section.events]
        assert events == [What.BEGAN, What.JOINED][:n_whole]
        assert sum(len(section.sent) for section in trace.sections) == (2 if n_whole >= 3 else 0)
        assert len(trace.parts) == 0
        assert trace.n_cut_bytes == n_bytes - max([HEAD.size, *ends[ends <= n_bytes]])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty: the run ended before it wrote anything"),
        (encode_head()[:10], "was cut: it has 10 bytes of a head of 12"),
        (b"\x93NUMPY" + bytes(100), "is no trace: it begins with"),
        (HEAD.pack(MAGIC, 3), "has format 3, this mpims reads format 2: use the version that wrote it"),
        (HEAD.pack(MAGIC, 1) + bytes(4), "has format 1, this mpims reads format 2"),
        (WHOLE[:40] + WHOLE[60:], "is damaged: at byte .* there "),
        (WHOLE[: len(encode_head() + BEGAN) + 3] + BLOCKS[1], "is damaged: at byte .* no block of a trace"),
        (encode_head() + BLOCKS[1], "does not begin with a master"),
        (encode_head() + encode_block(b"NOTE", b"[}"), "is damaged: at byte 20 there are no events"),
        (encode_head() + encode_block(b"NOTE", b'["x"]'), "is damaged: at byte 20 there are no events"),
        (
            encode_head() + BEGAN + encode_notes([{"what": "failed", "t": 1, "rank": 1, "attexpt": 3}]),
            "trace is damaged: it has no attempt",
        ),
        (
            encode_head() + BEGAN + struct.pack("<4sI", b"PART", 5) + bytes(5),
            "there is no block of a trace",
        ),
        (encode_head() + BEGAN + changed(1, busy_s=-1.0), "is damaged: at byte .* no records of chunks"),
        (encode_head() + BEGAN + changed(0, longest_s=np.inf), "at byte .* no records of chunks"),
        (encode_head() + BEGAN + changed(0, received_s=1e300), "at byte .* no records of chunks"),
        (encode_head() + BEGAN + changed(1, stop=64), "at byte .* no records of chunks"),
        (
            encode_head() + BEGAN + encode_notes([{"what": "skipped", "t": 9.5, "rank": 1, "n_tries": 3}]),
            "trace is damaged: it has no item",
        ),
        (
            encode_head() + encode_notes([{"what": "ended", "t": np.nan}]),
            "is damaged: at byte 20 there are no events",
        ),
    ],
)
def test_what_is_no_trace_of_this_version_is_refused(content, text, tmp_path):
    with pytest.raises(UsageError, match=text) as caught:
        read_trace(written(tmp_path, content))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("stop", 0, r"has a part \[0, 0\), which is not one of 100 items in blocks of 64"),
        ("stop", 101, "which is not one of 100 items"),
        ("start", 63, "which is not one of 100 items"),
        ("start", -64, "which is not one of 100 items"),
    ],
)
def test_records_that_no_run_of_so_many_items_writes_are_told(field, value, text):
    check_records(ROWS, 100, 64)
    check_records(SENT_ROWS, 100, 64)
    rows = ROWS.copy()
    rows[field][0] = value
    with pytest.raises(UsageError, match=text):
        check_records(rows, 100, 64)


def test_a_run_without_a_trace_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no trace in"):
        read_trace(tmp_path)
    (tmp_path / TRACE).mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        read_trace(tmp_path)
