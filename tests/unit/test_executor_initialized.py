"""What an initializer sets with `global`: functions of the program see it, unless that has changed it."""

from __future__ import annotations

from functools import partial

import pytest

from mpims.executor import classes
from mpims.executor.cargo import Packer, unpack
from mpims.executor.initialized import call_initializer, forget_initialized

PROGRAM = """
table, kept, settings = None, 1, {}

def set_up(start):
    global table, made
    table, made = [start], "made"
    settings["start"] = start

def look_up():
    return table[0], kept

def read():
    return made, settings["start"], look_up()
"""


@pytest.fixture
def program():
    names = {"__name__": "__main__"}
    exec(PROGRAM, names)
    yield names
    forget_initialized()


def on_a_rank(function):
    return unpack(*Packer().pack(function))()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_function_sees_what_the_initializer_has_set(program, wrapped):
    function = partial(program["set_up"]) if wrapped else program["set_up"]
    call_initializer(*unpack(*Packer().pack((function, (5,)))))
    assert on_a_rank(program["read"]) == ("made", 5, (5, 1))
    assert on_a_rank(partial(program["look_up"])) == (5, 1)
    assert (program["table"], program["settings"]) == (None, {})


def test_what_the_program_has_changed_since_stays(program):
    call_initializer(*unpack(*Packer().pack((program["set_up"], (5,)))))
    program.update(table=[7], kept=2, made="by the program")
    assert on_a_rank(program["read"]) == ("by the program", 5, (7, 2))


def test_the_next_executor_knows_nothing_of_it(program):
    call_initializer(*unpack(*Packer().pack((program["set_up"], (5,)))))
    forget_initialized()
    with pytest.raises(NameError, match="made"):
        on_a_rank(program["read"])


def test_what_a_task_has_set_in_a_class_outlives_that_the_rank_looks_whether_it_travels():
    names = {"__name__": "__main__"}
    exec("class Failed(Exception): count = 0", names)
    failed, packer = names["Failed"], Packer()
    of_the_program = packer.pack(failed)
    classes._at_home.discard(failed)  # as on a rank
    assert unpack(*of_the_program) is failed
    failed.count += 1
    assert unpack(*packer.pack(failed)) is failed
    assert unpack(*of_the_program).count == 1


@pytest.mark.parametrize("between", [lambda: None, classes.forget_set])
def test_what_the_program_has_deleted_in_a_class_is_gone_on_ranks(between):
    names = {"__name__": "__main__"}
    exec("class Kind:\n    table = 1\n    def method(self): pass", names)
    kind, packer = names["Kind"], Packer()
    before = packer.pack(kind)
    table, method = kind.table, kind.method
    del kind.table, kind.method
    after = packer.pack(kind)
    classes._at_home.discard(kind)  # as on a rank
    kind.table, kind.method = table, method
    assert unpack(*before).table == 1
    kind.of_a_task = 2
    between()
    assert not {"table", "method"} & vars(unpack(*after)).keys()
    assert kind.of_a_task == 2
