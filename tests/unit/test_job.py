"""The job as an object: construction, the default kernel, random numbers, blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.errors import UsageError
from mpims.job import MAX_BLOCKS, Job, block_of
from mpims.outputs import Gather


class Scale(Job):
    """A job with parameters."""

    factor: float = 2.0
    n: int = 5

    def items(self):
        return self.n

    def task(self, item):
        return self.factor * item


class Offset(Scale):
    """A job that derives from a job."""

    offset: int = 1

    def task(self, item):
        return super().task(item) + self.offset


class Required(Job):
    """A job with a parameter that has no default."""

    path: str


class Indexed(Job):
    """A job whose task says which item it was told it has."""

    def task(self, item):
        return item, self.indices


# -------------------------------------------------------------------- construction


def test_parameters_are_keyword_arguments_with_defaults():
    assert Scale().parameters == {"factor": 2.0, "n": 5}
    assert Scale(n=7).parameters == {"factor": 2.0, "n": 7}
    assert Offset(offset=3, factor=1).parameters == {"factor": 1.0, "n": 5, "offset": 3}


def test_instances_do_not_share_their_values():
    first, second = Scale(n=1), Scale()
    assert (first.n, second.n, Scale.n) == (1, 5, 5)


def test_its_text_is_how_it_is_made():
    assert repr(Offset(n=2)) == "Offset(factor=2.0, n=2, offset=1)"
    assert repr(Indexed()) == "Indexed()"


@pytest.mark.parametrize(
    ("cls", "given", "text"),
    [
        (Scale, {"factr": 1.0}, "job Scale has no parameter 'factr': .*did you mean factor?"),
        (Scale, {"n": "5"}, r"job Scale: parameter n wants int, found '5' \(str\)"),
        (Required, {}, "job Required needs a value for path: --set path=VALUE"),
    ],
)
def test_what_cannot_be_made_is_a_usage_error(cls, given, text):
    with pytest.raises(UsageError, match=text):
        cls(**given)


def test_a_job_gathers_unless_it_says_otherwise():
    assert isinstance(Scale().output, Gather)


@pytest.mark.parametrize("call", [lambda job: job.items(), lambda job: job.kernel([1])])
def test_what_the_author_left_out_is_not_implemented(call):
    with pytest.raises(NotImplementedError):
        call(Job())


def test_setup_and_finish_may_be_left_out():
    job = Scale()
    assert job.setup() is None
    assert job.finish([1]) is None
    assert job.run_dir is None


# ------------------------------------------------------------------ the default kernel


def test_the_kernel_is_the_task_for_each_item_in_order():
    assert Offset(factor=10).kernel(range(3)) == [1.0, 11.0, 21.0]
    assert Scale().kernel([]) == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 20))
def test_a_task_knows_the_index_of_its_item(first, n_items):
    job = Indexed()
    job.indices = range(first, first + n_items)
    items = [f"item {i}" for i in range(n_items)]
    assert job.kernel(items) == [(item, range(first + i, first + i + 1)) for i, item in enumerate(items)]


# ------------------------------------------------------------------- random numbers


def draw(seed, index, n=4):
    job = Scale()
    job._seed = seed
    return job.rng(index).random(n).tolist()


def test_the_random_numbers_of_an_item_are_those_that_numpy_documents():
    sequence = np.random.SeedSequence(42, spawn_key=(1000,))
    assert draw(42, 1000) == np.random.Generator(np.random.PCG64(sequence)).random(4).tolist()


def test_the_random_numbers_are_those_of_all_time():
    """A result that was once computed can be computed again: these numbers may never change."""
    assert draw(0, 0, 2) == [0.9429375528828794, 0.3163371523854981]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64), st.integers(0, 2**40))
def test_seed_and_index_alone_decide(seed, index):
    assert draw(seed, index) == draw(seed, index)
    assert draw(seed, np.int64(index)) == draw(seed, index)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), unique=True, max_size=8))
def test_other_seeds_and_other_items_have_other_numbers(pairs):
    assert len({tuple(draw(*pair)) for pair in pairs}) == len(pairs)


def test_asking_again_begins_again():
    job = Scale()
    generator = job.rng(3)
    first = generator.random()
    assert generator.random() != first
    assert job.rng(3).random() == first


@pytest.mark.parametrize("index", [0.5, "3", None])
def test_an_index_is_an_integer(index):
    with pytest.raises(TypeError):
        Scale().rng(index)


def test_an_item_that_is_no_index_is_told_where_that_is():
    with pytest.raises(TypeError, match=r"found 'a': where items\(\) gave a sequence, self\.indices"):
        Scale().rng("a")


# ---------------------------------------------------------------------------- blocks


def with_block(block):
    return type("Blocked", (Job,), {"block": block})()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**12))
def test_the_default_block_is_the_smallest_that_makes_few_blocks(n_items):
    block = block_of(with_block(None), n_items)
    assert block >= 1
    assert -(-n_items // block) <= MAX_BLOCKS
    assert block == 1 or -(-n_items // (block - 1)) > MAX_BLOCKS


@pytest.mark.parametrize(
    ("n_items", "expected"), [(0, 1), (1, 1), (MAX_BLOCKS, 1), (MAX_BLOCKS + 1, 2), (10 * MAX_BLOCKS, 10)]
)
def test_the_default_block_of_some_sizes(n_items, expected):
    assert block_of(with_block(None), n_items) == expected


def test_a_jobs_own_block_holds_for_any_number_of_items():
    assert [block_of(with_block(64), n) for n in (0, 1, 10**9)] == [64, 64, 64]
    block = block_of(with_block(np.int64(64)), 100)
    assert (block, type(block)) == (64, int)


@pytest.mark.parametrize("block", [0, -1, 1.0, "64", True])
def test_a_block_is_a_positive_integer(block):
    with pytest.raises(UsageError, match="job Blocked: block must be a positive integer or None, found"):
        block_of(with_block(block), 100)
