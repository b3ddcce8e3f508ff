"""A mapping alone: its input, and what becomes of its results, with nobody to compute them but the test."""

from __future__ import annotations

from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from itertools import count
from math import inf
from threading import Lock, Thread
from types import SimpleNamespace

import pytest

from mpims.executor.cargo import PLAIN, Batch, Packer, unpack
from mpims.executor.clients import Clients
from mpims.executor.errors import CannotTravel
from mpims.executor.functions import ARGUMENTS, ITEM, Function
from mpims.executor.mapping import LEAST_AHEAD, MOST_AHEAD, MOST_BYTES, Mapping
from mpims.executor.orders import Close

N_WORKERS = 2


class Hands:
    """Keeps what a mapping gives, and computes it when it is told to."""

    def __init__(self, source, mode=ITEM, **options):
        self.tasks = []
        self.ended = []
        self.keys = count()
        options = {"is_background": False, "ordered": True, "most": None, **options}
        self.mapping = Mapping(
            Function(1, (PLAIN, b"")),
            mode,
            source,
            packer=Packer(),
            n_workers=N_WORKERS,
            give=self.tasks.append,
            help=lambda is_there, until: None,
            new_key=lambda mapping: next(self.keys),
            ended=self.ended.append,
            **options,
        )
        self.mapping.feed()

    @property
    def n_given(self):
        return sum(len(tasks.batch) for tasks in self.tasks)

    def compute(self, i=0, each_s=1e-3):
        tasks = self.tasks.pop(i)
        values = [value * 10 for value in tasks.batch.values]
        self.mapping.take(tasks.key, 0, Batch(values, bytearray(len(values))), each_s * len(values))


def test_at_first_there_are_few_tasks_and_more_once_they_are_known_to_be_short():
    hands = Hands(count())
    assert hands.n_given == LEAST_AHEAD * N_WORKERS
    results = hands.mapping.results(inf)
    hands.compute(each_s=1e-6)
    assert [next(results) for _ in range(8)] == [i * 10 for i in range(8)]
    with pytest.raises(FutureTimeoutError):
        hands.mapping._next_batch(0.0)
    assert 0.7 * MOST_AHEAD < hands.n_given <= MOST_AHEAD


def test_a_background_input_is_advanced_as_results_come():
    hands = Hands(iter(range(10**6)), is_background=True)
    n = hands.n_given
    hands.compute(each_s=1e-3)
    assert hands.n_given > n


def test_large_arguments_are_not_all_taken_at_once():
    hands = Hands(b"x" * (MOST_BYTES // 16) for _ in count())
    hands.mapping._mean_s = 1e-6
    hands.mapping._n_taken = hands.mapping._n_given
    before = hands.n_given
    hands.mapping.feed()
    assert 0 < hands.n_given - before <= 16


def test_results_are_given_in_order_whatever_comes_first():
    hands = Hands(iter(range(8)), most=2)
    results = hands.mapping.results(inf)
    assert hands.n_given == 2
    hands.compute()
    assert [next(results), next(results)] == [0, 10]


def test_what_was_cut_off_is_no_end():
    hands = Hands(count())
    results = hands.mapping.results(inf)
    hands.mapping.cut_off()
    hands.compute()
    assert [next(results) for _ in range(8)] == [i * 10 for i in range(8)]
    with pytest.raises(CancelledError):
        next(results)
    assert hands.ended


def test_an_end_is_told_once_all_is_there():
    hands = Hands(iter(range(3)))
    assert not hands.ended
    results = hands.mapping.results(inf)
    hands.compute()
    assert list(results) == [0, 10, 20]
    assert hands.ended


def test_nothing_is_handed_out_for_results_that_nobody_takes():
    hands = Hands(count())
    results = hands.mapping.results(inf)
    hands.compute()
    next(results)
    results.close()
    assert not hands.mapping.started()
    assert hands.mapping.is_exhausted


def failing(n, error):
    """An input that fails after so many."""
    yield from range(n)
    raise error


@pytest.mark.parametrize("is_background", [False, True])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda n: iter([*range(n), Lock(), *range(10)]), CannotTravel),
        (lambda n: failing(n, KeyError("input")), KeyError),
    ],
    ids=["cannot travel", "raises"],
)
@pytest.mark.parametrize("n", [0, 3, 3001])
def test_an_input_that_fails_does_so_after_the_results_of_what_came_before(make, error, n, is_background):
    hands = Hands(make(n), is_background=is_background)
    results = hands.mapping.results(inf)
    hands.mapping._help = lambda is_there, until: hands.compute() if hands.tasks else None
    assert [next(results) for _ in range(n)] == [i * 10 for i in range(n)]
    with pytest.raises(error):
        next(results)
    assert hands.ended


def test_whatever_a_background_input_raises_it_is_not_the_master_that_gets_it():
    hands = Hands(failing(10, SystemExit(3)), is_background=True)
    results = hands.mapping.results(inf)
    hands.compute()
    assert [next(results) for _ in range(8)] == [i * 10 for i in range(8)]
    with pytest.raises(SystemExit):
        list(results)


@pytest.mark.parametrize("is_background", [False, True])
def test_results_are_taken_in_while_the_input_is_waited_for(is_background):
    """It may wait for just these, or for others that the same thread takes in."""

    def source():
        yield from range(8)
        for compute in (hands.compute, hands.mapping.feed):
            thread = Thread(target=compute, daemon=True)
            thread.start()
            thread.join(5)
            assert not thread.is_alive()
            hands.mapping.feed()  # as where this thread takes results in, too
        yield 8

    hands = Hands(source(), is_background=is_background)
    hands.mapping._mean_s = 1e-3
    hands.mapping.feed()
    hands.compute()
    assert list(hands.mapping.results(inf)) == [i * 10 for i in range(9)]
    assert hands.ended


@pytest.mark.parametrize("source", [range(3000), failing(3000, KeyError("input"))], ids=["list", "failing"])
def test_the_master_is_not_told_of_the_end_before_it_has_all_of_a_list(source):
    orders = []
    clients = Clients()
    clients.link = SimpleNamespace(give=orders.append)
    hands = Hands(iter(source), is_background=True)
    clients.mappings.add(hands.mapping)
    hands.mapping._tell_ended = clients.mapping_ended
    clients.close()
    assert orders == []
    while hands.tasks:
        hands.compute()
    assert [type(order) for order in orders] == [Close]


@pytest.mark.parametrize("mode", [ITEM, ARGUMENTS])
def test_what_a_generator_does_to_its_last_value_does_not_matter(mode):
    value = [0]

    def changing():
        for i in range(100):
            value[0] = i
            yield value if mode == ITEM else (i, value)

    hands = Hands(changing(), mode=mode, most=100)
    (batch,) = [tasks.batch for tasks in hands.tasks]
    found = [unpack(*packed) for packed in zip(batch.flags, batch.values, strict=True)]
    assert found == [[i] if mode == ITEM else (i, [i]) for i in range(len(found))]
    assert len(found) == LEAST_AHEAD * N_WORKERS


def test_an_input_is_not_asked_again_once_it_has_ended():
    asked = []

    class Once:
        def __iter__(self):
            return self

        def __next__(self):
            asked.append(1)
            raise StopIteration

    hands = Hands(Once())
    assert hands.ended
    assert list(hands.mapping.results(inf)) == []
    assert len(asked) == 1
