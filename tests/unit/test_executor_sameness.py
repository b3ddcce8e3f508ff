"""What is remembered of a function that travels by value, and what changes it."""

from __future__ import annotations

import math
from types import ModuleType

import pytest

from mpims.executor.cargo import Packer, unpack
from mpims.executor.functions import Functions
from mpims.executor.sameness import Seen

SOURCE = """
import math
factor = 3
listed = [1]
class Own: pass
def inner(x):
    return x * factor
def outer(x, more=2):
    return inner(x) + math.floor(more)
def recursive(n):
    return 1 if n < 2 else n * recursive(n - 1)
def with_list(x):
    return listed[0] + x
def with_class(x):
    return Own()
def nested(x):
    return [inner(y) for y in (x, lambda: factor)]
"""


@pytest.fixture
def program():
    module = ModuleType("__main__")
    exec(SOURCE, module.__dict__)
    return module


@pytest.mark.parametrize("name", ["inner", "outer", "recursive", "nested"])
def test_a_function_of_what_cannot_change_is_the_same_until_something_is_replaced(program, name):
    seen = Seen(getattr(program, name))
    assert seen.is_constant
    assert seen.is_same()


@pytest.mark.parametrize("name", ["with_list", "with_class"])
def test_nothing_is_remembered_of_a_function_of_what_may_change_by_itself(program, name):
    assert not Seen(getattr(program, name)).is_constant


def _other_code(program):
    program.inner.__code__ = (lambda x: x).__code__


def _other_default(program):
    program.outer.__defaults__ = (5,)


def _shadowed(program):
    program.floor = math.ceil  # a name that is an attribute in `outer`, and might be a global


@pytest.mark.parametrize(
    "change",
    [
        lambda program: setattr(program, "factor", 4),
        lambda program: setattr(program, "inner", math.sqrt),
        _other_code,
        _other_default,
        _shadowed,
    ],
)
def test_what_is_replaced_is_seen_also_behind_another_function(program, change):
    seen = Seen(program.outer)
    assert seen.is_same()
    change(program)
    assert not seen.is_same()


def test_what_a_closure_holds_is_looked_at_each_time():
    def make(value):
        def closure():
            return value

        def replace(new):
            nonlocal value
            value = new

        return closure, replace

    closure, replace = make(1)
    functions = Functions(Packer())
    first = functions.get(closure)
    assert functions.get(closure) is first
    replace(2)
    assert unpack(*functions.get(closure).stream)() == 2
    assert not Seen(make([])[0]).is_constant
    assert not Seen(make([].append)[0]).is_constant
    assert Seen(make((1, "a", math.sqrt, dict))[0]).is_constant


def test_it_is_pickled_once(program, monkeypatch):
    packer = Packer()
    functions = Functions(packer)
    first = functions.get(program.outer)
    monkeypatch.setattr(packer, "pack", None)
    assert functions.get(program.outer) is first
