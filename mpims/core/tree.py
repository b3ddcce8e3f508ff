"""The fixed reduction tree over blocks: which results are combined with which, and in what order.

Node ``(level, position)`` stands for blocks ``[position * 2**level, (position + 1) * 2**level)``, cut
at the last block. A node is the combination of its left and its right child, in that order; a node whose
right child would begin beyond the last block is its left child unchanged. The tree depends on the
number of blocks alone, so whoever combines which nodes, in whatever order the results arrive, the
operands of every single combination are the same: sums of floating-point numbers come out the same
to the last bit, and functions that do not commute work.

The idea of fixing the tree to make parallel sums reproducible is that of deterministic tree
reduction (e.g. Villa et al., "Effects of floating-point non-associativity on numerical computations
on massively multithreaded systems", CUG 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

from mpims.core.chunks import Range

T = TypeVar("T")


class Absent(Enum):
    """The value of a leaf that has none, because all of its items were skipped."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
"""Combined with anything it gives that."""


class Node(NamedTuple):
    """One node of the tree: blocks ``[position << level, (position + 1) << level)``."""

    level: int
    position: int


def node_items(node: Node, block: int, n_items: int) -> Range:
    """The items that a node stands for."""
    start = (node.position << node.level) * block
    return start, min(start + (block << node.level), n_items)


def fold(values: Sequence[T], combine: Callable[[T, T], T]) -> T:
    """Combine a non-empty sequence along the tree that has its elements as leaves.

    Examples
    --------
    >>> fold(["a", "b", "c", "d", "e"], lambda x, y: f"({x}{y})")
    '(((ab)(cd))e)'
    """
    level = list(values)
    while len(level) > 1:
        paired = [combine(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) & ~1 :]
    return level[0]


class Forest(Generic[T]):
    """Nodes with their values, siblings combined as soon as both are there.

    Parameters
    ----------
    n_blocks
        The number of leaves of the whole tree.
    combine
        An associative function of a left and a right value; each value is used exactly once.

    Examples
    --------
    >>> forest = Forest(3, lambda x, y: x + y)
    >>> for index, value in [(2, "c"), (0, "a"), (1, "b")]:
    ...     forest.add(Node(0, index), value)
    >>> forest.root()
    'abc'
    """

    __slots__ = ("_combine", "_n_blocks", "nodes")

    def __init__(self, n_blocks: int, combine: Callable[[T, T], T]) -> None:
        self._n_blocks = n_blocks
        self._combine = combine
        self.nodes: dict[Node, T] = {}

    def add(self, node: Node, value: T) -> None:
        """Put a node in and combine upwards as far as siblings are there."""
        level, position = node
        while True:
            if position % 2 == 0 and (position + 1) << level >= self._n_blocks:
                if position == 0:
                    break  # the root
            else:
                twin = Node(level, position ^ 1)
                if twin not in self.nodes:
                    break
                sibling = self.nodes.pop(twin)
                left, right = (value, sibling) if position % 2 == 0 else (sibling, value)
                value = self._join(left, right)
            level, position = level + 1, position // 2
        self.nodes[Node(level, position)] = value

    def _join(self, left: Any, right: Any) -> Any:
        if left is ABSENT or right is ABSENT:
            return right if left is ABSENT else left
        return self._combine(left, right)

    def take(self) -> list[tuple[Node, T]]:
        """Take all nodes out, in the order of their blocks."""
        nodes = sorted(self.nodes.items(), key=lambda entry: entry[0].position << entry[0].level)
        self.nodes = {}
        return nodes

    def root(self) -> T:
        """The value of the whole tree; every leaf must be in."""
        (value,) = self.nodes.values()
        return value
