"""SHA-256 digests of values: equal values give equal digests, on every rank and in every run.

The canonical form that is hashed, for each kind of value a one-byte tag, then:

* ndarray and NumPy scalar: the dtype's string form (``'<f4'``, or the list of fields), the shape, the
  bytes in C order, with zeros where nothing is stored; an array of objects as a list of lists; a masked
  array as its values, with zeros where they are masked, and its mask.
* None, bool, int, float, complex: their ``repr``; str: UTF-8; bytes: themselves.
* list, tuple: their elements; dict: its entries sorted by the digest of the key; set: its elements
  sorted by digest. A subclass adds its qualified name.
* a range: start, stop and step; a class or function: its qualified name.
* anything else: what ``__reduce_ex__(4)`` says it is made of, that is what pickle would store, but
  without the identities that make equal pickles differ.

Every variable part is preceded by its length, so that no two values share a form.
"""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_CHUNK_BYTES = 1 << 24
_MAX_ITEMS = 10_000
_X87_BYTES = 10
"""What a long double of that processor takes of its 12 or 16 bytes; others take them all."""


def is_masked(value: Any) -> bool:
    """Whether a value is a masked array; NumPy's module of them is not imported for it: it is large."""
    module = sys.modules.get("numpy.ma")
    return module is not None and isinstance(value, module.MaskedArray)


def digest(value: Any) -> str:
    """The SHA-256 of a value's canonical form, as hexadecimal digits.

    Raises
    ------
    TypeError
        The value, or something in it, cannot be taken apart (as by pickle).
    """
    return _hash(value, ()).hexdigest()


def told(value: Any) -> str:
    """What a value is, in a text that equal ones have in common on every rank and in every run.

    The ``repr`` of an object may have its address, that of a set any order, that of a large array gaps: of
    what is no number, text or list of these it is the type and the digest.

    Examples
    --------
    >>> told([1, "a"]), told({1, 2}) == told({2, 1})
    ("[1, 'a']", True)
    """
    if _is_plain(value):
        return repr(value)
    try:
        return f"<{type(value).__name__} {digest(value)[:12]}>"
    except Exception:  # an object that cannot be taken apart, for reasons of its own
        return f"<{type(value).__name__}>"


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return type(value) in _PLAIN or isinstance(value, (Enum, PurePath, np.number))


def digest_items(items: Sequence[Any]) -> str:
    """A digest of a job's items, to tell whether two ranks have the same.

    A range and an array are hashed whole; of a longer sequence than 10,000 items, that many evenly
    spaced ones and the last.
    """
    if isinstance(items, (range, np.ndarray)):
        return digest(items)
    step = max(1, len(items) // _MAX_ITEMS)
    sample = [items[i] for i in range(0, len(items), step)]
    return digest([len(items), sample, items[-1] if len(items) else None])


def _hash(value: Any, within: tuple[int, ...]) -> hashlib._Hash:
    state = hashlib.sha256()
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and not is_masked(value):
        _add_array(state, value)
    elif type(value) is int and value.bit_length() > 10_000:
        _add(state, b"a", b"int", hex(value).encode())  # repr refuses more than 4300 digits
    elif value is None or type(value) in (bool, int, float, complex):
        _add(state, b"a", type(value).__name__.encode(), repr(value).encode())
    elif type(value) is str:
        _add(state, b"s", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray)):
        _add(state, b"b", type(value).__name__.encode(), bytes(value))
    elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        _add(state, b"g", _name(value))
    elif type(value) is range:
        _add(state, b"r", repr((value.start, value.stop, value.step)).encode())
    else:
        if id(value) in within:
            raise TypeError(f"a {type(value).__name__} that contains itself has no digest")
        _add_composite(state, value, (*within, id(value)))
    return state


def _add(state: hashlib._Hash, tag: bytes, *parts: bytes) -> None:
    state.update(tag)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)


def _add_array(state: hashlib._Hash, array: npt.NDArray[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(array.dtype)
    _add(state, b"n", repr(descr).encode(), repr(array.shape).encode())
    flat = np.ascontiguousarray(array).reshape(-1)
    n_elements = max(1, _CHUNK_BYTES // max(1, array.dtype.itemsize))
    for start in range(0, flat.size, n_elements):
        piece = flat[start : start + n_elements]
        state.update(_without_padding(piece).view(np.uint8).data)


def _without_padding(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array with zeros between its fields and behind its long doubles, where anything may stand."""
    if array.dtype.names is not None:
        clean = np.zeros(array.shape, array.dtype)
        for name in array.dtype.names:
            clean[name] = _without_padding(array[name])
        return clean
    if array.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        clean = array.flatten()
        numbers = clean.view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
        if array.dtype.isnative:
            numbers[:, _X87_BYTES:] = 0
        else:
            numbers[:, :-_X87_BYTES] = 0
        return clean.reshape(array.shape)
    return array


def _add_composite(state: hashlib._Hash, value: Any, within: tuple[int, ...]) -> None:
    def hashes(values: Iterable[Any]) -> list[bytes]:
        return [_hash(v, within).digest() for v in values]

    kind = _name(type(value))
    if is_masked(value):
        nothing = np.zeros((), value.dtype)[()]  # its own fill value is no part of what it says
        _add(state, b"m", *hashes([value.filled(nothing), np.ma.getmaskarray(value)]))
    elif isinstance(value, np.ndarray):
        _add(state, b"O", repr(value.shape).encode(), *hashes(value.ravel().tolist()))
    elif isinstance(value, (list, tuple)):
        _add(state, b"l", kind, *hashes(value))
    elif isinstance(value, dict):
        entries = sorted(zip(hashes(value), hashes(value.values()), strict=True))
        _add(state, b"d", kind, *(part for entry in entries for part in entry))
    elif isinstance(value, (set, frozenset)):
        _add(state, b"e", kind, *sorted(hashes(value)))
    else:
        made_of = value.__reduce_ex__(4)
        if isinstance(made_of, str):
            _add(state, b"o", made_of.encode())
        else:
            parts = [list(p) if hasattr(p, "__next__") else p for p in made_of]
            _add(state, b"o", *hashes(parts))


def _name(thing: Any) -> bytes:
    return f"{thing.__module__}.{thing.__qualname__}".encode()
