"""The cases, a file each."""

from benchmarks.case import Case
from benchmarks.cases import (
    arrays,
    chunked,
    executor,
    memory,
    simulated,
    single,
    slow,
    startup,
    uneven,
    waiting,
)
from benchmarks.tools import Settings

MAKERS = {
    "a": single.make,
    "b": chunked.make,
    "c": arrays.make,
    "d": uneven.make,
    "e": slow.make,
    "f": waiting.make,
    "g": startup.make,
    "h": memory.make,
    "i": executor.make,
    "j": simulated.make,
}


def make_case(key: str, settings: Settings) -> Case:
    """The case of that letter."""
    return MAKERS[key](settings)
