"""Classes of the program itself on their way: their pickles hold them by value, each time one is used.

Where a class is at home it stays as it is: what comes home of it is what it was when it left. Where it is
not, what a class has beside its methods is there as it was brought; what the initializer or a task has set
since takes its place unless the program has changed that.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

_at_home: WeakSet[type] = WeakSet()
_brought: WeakKeyDictionary[type, dict[str, bytes | None]] = WeakKeyDictionary()
"""What came with each class from elsewhere, by the names of its attributes: data pickled, else None."""
_by_number: WeakValueDictionary[str, type] = WeakValueDictionary()
_NUMBER = -2  # of the arguments that make a class: its number, the same in every process
_REGISTRY = "_abc_impl"


def make_class(make: Callable[..., type], *arguments: Any) -> type:
    """The class of that number; it is made but once, for its bases may keep count of what is derived."""
    number = arguments[_NUMBER]
    found = _by_number.get(number)
    if found is None:
        found = _by_number[number] = make(*arguments)
    return found


def note_at_home(value: type, arguments: tuple[Any, ...]) -> bool:
    """A class leaves this process, to be made of these: unless it was brought, it is at home here."""
    _by_number[arguments[_NUMBER]] = value
    is_brought = value in _brought
    if not is_brought:
        _at_home.add(value)
    return not is_brought


def forget_set() -> None:
    """The executor has ended: all comes anew."""
    for value, names in list(_brought.items()):
        _brought[value] = dict.fromkeys(names)


def set_class_state(setter: Callable[[type, Any], type], value: type, state: Any) -> type:
    """Give a class that has come its attributes, as cloudpickle's `setter` does."""
    if value in _at_home:
        return value
    attributes, slots = state
    before = _brought.get(value, {})
    now = {
        name: _pickle(it) if _is_data(it) else None for name, it in attributes.items() if name != _REGISTRY
    }
    _brought[value] = now
    for name in before.keys() - now.keys():  # the program has deleted it
        if name in vars(value):
            delattr(value, name)
    changed = {
        name: it
        for name, it in attributes.items()
        if now.get(name) is None or now[name] != before.get(name)
    }
    return setter(value, (changed, slots))


def set_unknown_state(setter: Callable[[type, Any], type], value: type, state: Any) -> type:
    """The same, of a class from where it is not at home: who has it already has no use for it.

    So it is with what a rank unpickles to see whether it can be.
    """
    return value if value in _brought else set_class_state(setter, value, state)


def _is_data(value: Any) -> bool:
    return not (hasattr(type(value), "__get__") or isinstance(value, type))


def _pickle(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # whatever an object of the user's raises when it is pickled
        return None
