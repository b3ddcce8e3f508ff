"""A block tried item by item, against a plain program that tries the same kernel."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.runtime.itemwise import ItemwiseBlock

START = 40


class Kernel:
    """Fails so often for each item alone, then goes well; and so often for the block."""

    def __init__(self, failures: list[int], whole_fails: bool) -> None:
        self.left = dict(enumerate(failures, START))
        self.whole_fails = whole_fails
        self.calls: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> list[str]:
        self.calls.append((start, stop))
        if stop - start > 1:
            if self.whole_fails:
                raise ValueError("whole")
            return [f"whole {i}" for i in range(start, stop)]
        self.left[start] -= 1
        if self.left[start] >= 0:
            raise ValueError(f"{start}, {self.left[start]} to go")
        return [f"alone {start}"]


def drive(block: ItemwiseBlock, kernel: Kernel, n_at_once: int) -> None:
    """What a worker does: some calls of those to come, until one fails, then it asks again."""
    while ranges := block.upcoming():
        for start, stop in ranges[:n_at_once]:
            try:
                results = kernel(start, stop)
            except ValueError as error:
                block.failed((start, stop), str(error), "detail")
                break
            block.done((start, stop), results)


@settings(max_examples=300, deadline=None)
@given(
    failures=st.lists(st.integers(0, 4), min_size=2, max_size=8),
    n_tries=st.integers(1, 4),
    whole_fails=st.booleans(),
    n_at_once=st.integers(1, 9),
)
def test_every_item_is_tried_as_often_as_may_be_and_then_the_whole(
    failures, n_tries, whole_fails, n_at_once
):
    stop = START + len(failures)
    block, kernel = ItemwiseBlock(START, stop, n_tries), Kernel(failures, whole_fails)
    drive(block, kernel, n_at_once)
    bad = [START + i for i, n in enumerate(failures) if n >= n_tries]
    expected = [
        (START + i, START + i + 1) for i, n in enumerate(failures) for _ in range(min(n + 1, n_tries))
    ]
    assert kernel.calls == expected + ([] if bad else [(START, stop)])
    assert block.upcoming() == []
    assert block.results == {i: [f"alone {i}"] for i in range(START, stop) if i not in bad}
    assert block.whole == (None if bad or whole_fails else [f"whole {i}" for i in range(START, stop)])
    assert [(s.item, s.n_tries, s.detail) for s in block.skipped] == [(i, n_tries, "detail") for i in bad]
    for skipped in block.skipped:  # why the last try failed
        assert skipped.reason == f"{skipped.item}, {failures[skipped.item - START] - n_tries} to go"


def test_what_is_to_come_is_known_as_long_as_nothing_fails():
    block = ItemwiseBlock(2, 5, 1)
    assert block.upcoming() == [(2, 3), (3, 4), (4, 5)]
    block.done((2, 3), ["a"])
    assert block.upcoming() == [(3, 4), (4, 5)]
    block.done((3, 4), ["b"])
    block.done((4, 5), ["c"])
    assert block.upcoming() == [(2, 5)]
    block.failed((2, 5), "why", "")
    assert block.upcoming() == []
    assert block.skipped == []
    assert block.results == {2: ["a"], 3: ["b"], 4: ["c"]}
