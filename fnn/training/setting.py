"""The setting of a run: everything that its result depends on, as text by place, to recognize the run when it goes on.

    {"optimizer": "Adam", "optimizer.learning_rate": "0.001", ..., "data.x": "(60000, 784), CRC-32 3f1c22d0", ...}

The text is the same in every process and on both backends. How long a run lasts is not part of it.
"""

import functools
import inspect
import numbers
import types
import zlib
from dataclasses import fields
from typing import Any

import numpy as np

from .. import examples, gate, random, trees
from ..backend import Held, is_jax, jax
from ..checks import known
from ..errors import shorten
from ..losses import L2  # noqa: F401 - for the example
from ..processes import of_each_part, whole
from ..static import Static
from ..streams import Stream


def setting_of(problem: Any, state: Any, plan: Any, data: Any, metrics: Any, **options: Any) -> dict[str, str]:
    """The setting of a run on these data, which begins from this state; `options` are other arguments that matter."""
    parts = problem._asdict() | options
    named = lambda metric: repr(metric) if isinstance(metric, Static) else _text(metric)  # may keep a record of calls
    parts |= {"metrics": {name: named(metric) for name, metric in metrics.items()}}
    parts |= {"optimizer": state.optimizer, "rule": state.rule, "key": _key_text(state.key)}
    parts |= {"batch_size": plan.batch_size, "shuffle": plan.shuffle, "data": fingerprint(state.params, data)}
    return {place: text for name, part in parts.items() for place, text in description(name, part).items()}


def differences(there: dict[str, str], here: dict[str, str]) -> str:
    """What differs between the setting of a checkpoint and that of a run, except how they began; "" if nothing does."""
    places = [place for place in there | here if there.get(place) != here.get(place) and place != "start"]
    within = lambda place, other: place.startswith((f"{other}.", f"{other}["))
    outer = [place for place in places if not any(within(place, other) for other in places)]
    text = lambda value: value if value and value.isprintable() and len(value) < 200 else shorten(value, 200)
    shown = [f"{text(at)} is {text(there.get(at))} in the checkpoint, {text(here.get(at))} here" for at in outer[:5]]
    return "; ".join(shown + [f"and {len(outer) - 5} more"] * (len(outer) > 5))


def fingerprint(params: Any, data: Any) -> Any:
    """Text in place of each array: its shape, and the CRC-32 of its values as they enter the steps.

    Of a stream it is what its batches are like: to know their values it would have to be read. An array of which each
    process has a share has the CRC-32 of all shares in their order; all processes call this.
    """
    if isinstance(data, Stream):
        return data.text
    crcs = trees.map(lambda _: 0, tuple(data))
    for _, piece in data.pieces():
        of_array = lambda a, crc: _crc(a, crc) if known(a) else _crc_of_shares(a)
        crcs = trees.map(of_array, tuple(gate.converted(params, *piece)), crcs)
    return examples.Data(*trees.map(lambda array, crc: f"{array.shape}, CRC-32 {crc:08x}", tuple(data), crcs))


def start_of(state: Any) -> str:
    """A state that a run begins from, as text: its step, and the CRC-32 of its parameters."""
    crc = 0
    for w in trees.leaves(whole(state.params)):
        crc = _crc(w, crc)
    return f"step {int(state.step)}, CRC-32 {crc:08x}"


def description(place: str, thing: Any, around: tuple = ()) -> dict[str, str]:
    """A thing as text by place: the names of classes and functions, numbers, and the parts of what has parts.

    Of a function the parts are what it encloses: a learning rate, in the functions of Optax.

    >>> description("penalty", L2(0.5))
    {'penalty': 'L2', 'penalty.coefficient': '0.5'}
    """
    thing = inspect.unwrap(thing.thing if isinstance(thing, Held) else thing)
    result = {place: _text(thing)}
    if not any(thing is other for other in around):  # a function may enclose itself
        for name, part in _parts(thing).items():
            result |= description(place + name, part, (*around, thing))
    return result


def _text(thing):
    if isinstance(thing, str):
        return thing
    dtype = getattr(thing, "dtype", None)
    is_array = isinstance(dtype, np.dtype) and not dtype.hasobject
    if is_array and np.ndim(thing):
        return f"{thing.shape}, CRC-32 {_crc(thing):08x}"
    if is_array or thing is None or isinstance(thing, numbers.Number):
        return str(np.asarray(thing)[()]).removesuffix(".0")  # 1 and 1.0 are the same rate
    return getattr(thing, "__qualname__", type(thing).__name__)


def _parts(thing):
    if isinstance(thing, type | types.ModuleType):
        return {}
    if isinstance(thing, dict):
        return {f"[{key!r}]": part for key, part in thing.items()}
    if hasattr(thing, "_fields"):
        return {f".{name}": part for name, part in zip(thing._fields, thing, strict=True)}
    if isinstance(thing, tuple | list):
        return {f"[{i}]": part for i, part in enumerate(thing)}
    if isinstance(thing, Static):  # defaults are left out, since another version of fnn may have more of them
        pairs = ((field, getattr(thing, field.name)) for field in fields(thing))  # type: ignore[arg-type]
        return {f".{field.name}": part for field, part in pairs if part != field.default}
    if isinstance(thing, functools.partial):
        return {".func": thing.func, ".args": thing.args, ".keywords": thing.keywords}
    if inspect.isfunction(thing):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        enclosed = {f".{name}": cell.cell_contents for name, cell in cells if cell != types.CellType()}
        return enclosed | {".defaults": thing.__defaults__} if thing.__defaults__ else enclosed
    plain = vars(thing).items() if hasattr(thing, "__dict__") else ()
    return {f".{name}": part for name, part in plain if isinstance(part, numbers.Number | str)}


def _key_text(key):
    """A random key: its words, and how it draws, unless in the usual way."""
    usual = not is_jax(key) or str(jax.random.key_impl(key)) == "threefry2x32"
    return f"{random.like(key, np).tolist()}" + ("" if usual else f" {jax.random.key_impl(key)}")


def _crc(array, crc=0):
    """The CRC-32 of an array, after that of others. Integers count as int64, for which JAX may have int32."""
    return zlib.crc32(_bytes(array).data, crc)


def _bytes(array):
    array = np.asarray(array)
    wide = array.astype(np.int64) if array.dtype.kind in "iu" and array.dtype.itemsize > 1 else array
    return np.ascontiguousarray(wide).reshape(-1).view(np.uint8)


def _crc_of_shares(array):
    """The CRC-32 of an array whose examples are divided among processes, each of which reads its own only."""
    if any(array.sharding.spec[1:]):
        return _crc(whole(array))
    size = _bytes(array.addressable_shards[0].data).nbytes  # that of all parts
    return functools.reduce(lambda total, crc: joined_crc(total, crc, size), of_each_part(array, _crc))


def joined_crc(first: int, second: int, size: int) -> int:
    """The CRC-32 of two parts, from that of each and the second one's size in bytes.

    A CRC is a polynomial over GF(2), modulo another one: crc(A B) = crc(A) x^(8 size) + crc(B).

    >>> joined_crc(zlib.crc32(b"to"), zlib.crc32(b"gether"), 6) == zlib.crc32(b"together")
    True
    """
    shift, power = 1 << 31, 1 << 23  # 1 and x⁸: the highest bit is the lowest power
    while size:
        shift = _product(shift, power) if size & 1 else shift
        power, size = _product(power, power), size >> 1
    return _product(first, shift) ^ second


def _product(a, b):
    """The product of two polynomials over GF(2), modulo that of CRC-32."""
    product = 0
    for place in range(31, -1, -1):
        product ^= b if a >> place & 1 else 0
        b = b >> 1 ^ (0xEDB88320 if b & 1 else 0)
    return product
