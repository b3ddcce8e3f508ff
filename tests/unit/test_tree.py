"""The fixed tree: whoever combines what, in whatever order, the parentheses are the same."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.tree import Forest, Node, fold, node_items

n_blocks_strategy = st.integers(1, 70)


def pair(left, right):
    """A combination that neither commutes nor associates: its value is its whole history."""
    return f"({left}{right})"


def leaves(n):
    return [f"<{i}>" for i in range(n)]


def recursive_fold(values):
    """The tree by its definition: split at the largest power of two below the length."""
    if len(values) == 1:
        return values[0]
    middle = 1
    while 2 * middle < len(values):
        middle *= 2
    return pair(recursive_fold(values[:middle]), recursive_fold(values[middle:]))


def worker_nodes(n_blocks, start, stop):
    """The nodes that a worker with blocks ``[start, stop)`` sends."""
    forest = Forest(n_blocks, pair)
    for index, value in enumerate(leaves(n_blocks)[start:stop], start):
        forest.add(Node(0, index), value)
    return forest.take()


@st.composite
def splits(draw):
    """A number of blocks, cut into chunks."""
    n_blocks = draw(n_blocks_strategy)
    cuts = draw(st.sets(st.integers(0, n_blocks)))
    return n_blocks, list(pairwise(sorted({0, n_blocks} | cuts)))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, "<0>"),
        (2, "(<0><1>)"),
        (3, "((<0><1>)<2>)"),
        (6, "(((<0><1>)(<2><3>))(<4><5>))"),
        (7, "(((<0><1>)(<2><3>))((<4><5>)<6>))"),
    ],
)
def test_small_trees(n, expected):
    assert fold(leaves(n), pair) == expected


@pytest.mark.parametrize("n", range(1, 70))
def test_fold_is_the_tree_of_the_definition(n):
    assert fold(leaves(n), pair) == recursive_fold(leaves(n))


def test_fold_leaves_its_argument_alone_and_calls_nothing_for_one_value():
    values = leaves(5)
    fold(values, pair)
    assert values == leaves(5)
    assert fold(("only",), None) == "only"


@settings(max_examples=150, deadline=None)
@given(n_blocks_strategy.flatmap(lambda n: st.permutations(range(n))))
def test_leaves_in_any_order_give_the_same_parentheses(order):
    values = leaves(len(order))
    forest = Forest(len(order), pair)
    for index in order:
        forest.add(Node(0, index), values[index])
    assert forest.root() == fold(values, pair)


@settings(max_examples=200, deadline=None)
@given(splits(), st.randoms(use_true_random=False))
def test_chunks_of_any_size_in_any_order_give_the_same_parentheses(split, random):
    n_blocks, chunks = split
    nodes = [node for chunk in chunks for node in worker_nodes(n_blocks, *chunk)]
    random.shuffle(nodes)
    forest = Forest(n_blocks, pair)
    for node, value in nodes:
        forest.add(node, value)
    assert len(forest.nodes) == 1
    assert forest.root() == fold(leaves(n_blocks), pair)


@st.composite
def covers(draw):
    """A tree's size, and aligned nodes that together are all of it: children drawn at random."""
    n_blocks = draw(n_blocks_strategy)
    level = (n_blocks - 1).bit_length()
    open_nodes, cover = [Node(level, 0)], []
    while open_nodes:
        level, position = open_nodes.pop()
        if position << level >= n_blocks:
            continue
        if level and draw(st.booleans()):
            open_nodes += [Node(level - 1, 2 * position), Node(level - 1, 2 * position + 1)]
        else:
            cover.append(Node(level, position))
    return n_blocks, draw(st.permutations(cover))


@settings(max_examples=200, deadline=None)
@given(covers())
def test_aligned_nodes_of_any_level_in_any_order_give_the_same_parentheses(cover):
    n_blocks, nodes = cover
    values = leaves(n_blocks)
    forest = Forest(n_blocks, pair)
    for node in nodes:
        start, stop = node_items(node, 1, n_blocks)
        forest.add(node, fold(values[start:stop], pair))
    assert forest.root() == fold(values, pair)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5000), st.data())
def test_a_contiguous_range_is_few_nodes(n_blocks, data):
    start = data.draw(st.integers(0, n_blocks - 1))
    stop = data.draw(st.integers(start + 1, n_blocks))
    forest = Forest(n_blocks, lambda left, right: left + right)
    for index in range(start, stop):
        forest.add(Node(0, index), 1)
    taken = forest.take()
    assert len(taken) <= max(1, 2 * ceil(log2(stop - start + 1)))
    assert sum(value for _, value in taken) == stop - start


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200), st.integers(1, 9), st.data())
def test_the_nodes_of_a_range_are_its_items_in_order(n_blocks, block, data):
    n_items = (n_blocks - 1) * block + data.draw(st.integers(1, block))
    start = data.draw(st.integers(0, n_blocks - 1))
    stop = data.draw(st.integers(start + 1, n_blocks))
    ranges = [node_items(node, block, n_items) for node, _ in worker_nodes(n_blocks, start, stop)]
    assert ranges[0][0] == start * block
    assert ranges[-1][1] == min(stop * block, n_items)
    assert all(a[1] == b[0] for a, b in pairwise(ranges))


def test_values_are_used_once_so_that_combining_may_change_its_left_argument():
    def extend(left, right):
        left.extend(right)
        return left

    forest = Forest(11, extend)
    for index in (3, 10, 0, 7, 1, 9, 2, 4, 8, 6, 5):
        forest.add(Node(0, index), [index])
    assert forest.root() == list(range(11))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Node(0, 0), (0, 10)),
        (Node(0, 4), (40, 47)),
        (Node(1, 1), (20, 40)),
        (Node(2, 1), (40, 47)),
        (Node(3, 0), (0, 47)),
    ],
)
def test_the_items_of_a_node_end_with_the_items(node, expected):
    assert node_items(node, 10, 47) == expected


def test_siblings_are_combined_as_soon_as_both_are_there():
    calls = []

    def note(left, right):
        calls.append((left, right))
        return left + right

    forest = Forest(4, note)
    forest.add(Node(0, 2), "c")
    forest.add(Node(0, 1), "b")
    assert calls == []
    forest.add(Node(0, 0), "a")
    assert calls == [("a", "b")]
    forest.add(Node(0, 3), "d")
    assert calls == [("a", "b"), ("c", "d"), ("ab", "cd")]


def test_taking_empties_the_forest_and_sorts_by_block():
    forest = Forest(9, pair)
    for index in (7, 0, 3, 6, 2):
        forest.add(Node(0, index), str(index))
    assert forest.take() == [(Node(0, 0), "0"), (Node(1, 1), "(23)"), (Node(1, 3), "(67)")]
    assert forest.take() == []


def test_an_incomplete_tree_has_no_root():
    forest = Forest(4, pair)
    forest.add(Node(0, 0), "a")
    forest.add(Node(0, 3), "d")
    with pytest.raises(ValueError, match="too many values"):
        forest.root()
