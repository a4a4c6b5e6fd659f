"""The derivative of a function along a direction: by `jax.jvp` on JAX, on NumPy by one complex step.

    d/dt f(x + t v) at t = 0  =  Im f(x + i h v) / h        for h so small that h² is nothing beside 1

Nothing is subtracted, so nothing is lost; but f must be analytic. A `Step` is an array of complex numbers that takes
care of this: comparisons, maxima and |·| go by the real part, as in the formula on real numbers, and a function that is
not analytic is refused, so that no derivative is wrong.

Source: W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions" (1998).
"""

from typing import Any

import numpy as np

from . import backend, trees
from .errors import KindError


def jvp(f: Any, point: Any, direction: Any) -> Any:
    """The derivative of f, from a tree to a tree of arrays, at a point along a direction, a tree like the point.

    >>> jvp(lambda x: x**3, np.array([2.0]), np.array([1.0]))
    array([12.])
    """
    if any(backend.is_jax(leaf) for leaf in trees.leaves((point, direction))):
        return backend.jax.jvp(f, (point,), (direction,))[1]
    largest = max((float(abs(v).max(initial=0)) for v in trees.leaves(direction)), default=0.0)
    h = 2.0**-100 / (largest if 0 < largest < np.inf else 1)
    moved = f(trees.map(lambda x, v: (x + 1j * (h * v.astype(np.float64))).view(Step), point, direction))
    return trees.map(lambda y: np.imag(np.asarray(y)) / h, moved)


class Step(np.ndarray):
    """Complex numbers x + i h v, whose imaginary part is a derivative along a direction."""

    def __array_ufunc__(self, ufunc, method, *inputs, out: Any = None, **options):
        name, numbers = ufunc.__name__, [_plain(a) for a in inputs]
        kwargs = options if out is None else options | {"out": tuple(_plain(a) for a in out)}
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        if not any(np.iscomplexobj(a) for a in numbers):
            result = getattr(ufunc, method)(*numbers, **kwargs)
        elif name in _OF_REAL_PARTS:
            result = getattr(ufunc, method)(*(np.real(a) for a in numbers), **kwargs)
        elif method in _BENT.get(name, ()):
            if out is not None:
                raise KindError(f"np.{name}: expected a call without out= in a complex step")
            result = _BENT[name][method](*numbers, **kwargs)
        elif name in _ANALYTIC:
            result = getattr(ufunc, method)(*numbers, **kwargs)
        else:
            raise _not_analytic(name)
        return out[0] if out is not None else _step(result)

    def __array_function__(self, func, types, args, kwargs):
        if func.__name__ not in _OF_ARRAYS:
            raise _not_analytic(func.__name__)
        return trees.map(_step, super().__array_function__(func, types, args, kwargs))

    def argmax(self, *args, **kwargs) -> Any:
        return np.real(np.asarray(self)).argmax(*args, **kwargs)

    def argmin(self, *args, **kwargs) -> Any:
        return np.real(np.asarray(self)).argmin(*args, **kwargs)

    def astype(self, dtype, *args, **kwargs):
        if not np.iscomplexobj(self):
            return super().astype(dtype, *args, **kwargs)
        if not np.issubdtype(dtype, np.inexact):
            raise _not_analytic(f"astype({np.dtype(dtype)})")
        return self  # another precision is none of a number of 64 bits


def _plain(a):
    return a.view(np.ndarray) if isinstance(a, Step) else a


def _step(a):
    return np.asarray(a).view(Step) if np.iscomplexobj(a) and not isinstance(a, Step) else a


def _not_analytic(name):
    return KindError(
        f"np.{name}: expected an analytic function, as the derivative is computed by a complex step on NumPy; use JAX, "
        "or write the formula with other functions"
    )


def _larger(a, b, sign=1):
    """The larger of two, or their mean where they are equal, as JAX differentiates it."""
    apart = sign * (np.real(a) - np.real(b))
    return np.where(apart > 0, a, np.where(apart < 0, b, np.where(apart == 0, 0.5 * (a + b), a + b)))


def _largest(a, axis=0, keepdims=False, initial=None, *, sign=1, **_):
    """The largest along an axis, or the mean of all that are the largest."""
    axes = tuple(range(a.ndim)) if axis is None else axis
    first = (sign * a.real).max(axis=axes, keepdims=True) == sign * a.real
    largest = (a * first).sum(axis=axes, keepdims=keepdims) / first.sum(axis=axes, keepdims=keepdims)
    return largest if initial is None else _larger(largest, np.asarray(initial), sign)


_OF_REAL_PARTS = """
    greater greater_equal less less_equal equal not_equal isfinite isnan isinf signbit sign logical_not logical_and
    logical_or
""".split()  # noqa: SIM905
_BENT: Any = {
    "maximum": {"__call__": _larger, "reduce": _largest},
    "minimum": {
        "__call__": lambda a, b: _larger(a, b, -1),
        "reduce": lambda a, **options: _largest(a, **options, sign=-1),
    },
    "absolute": {"__call__": lambda a: np.where(a.real >= 0, a, -a)},
    "clip": {"__call__": lambda a, low, high: _larger(_larger(a, low), high, -1)},
}
_ANALYTIC = """
    add subtract multiply divide negative positive matmul vecdot power float_power square sqrt reciprocal exp exp2 expm1
    log log2 log10 log1p sin cos tan sinh cosh tanh arcsin arccos arctan arcsinh arccosh arctanh
""".split()  # noqa: SIM905
# What moves entries, or is made of the above.
_OF_ARRAYS = """
    amax amin argmax argmin array_split broadcast_arrays broadcast_to clip concatenate copy copyto cumsum diagonal dot
    einsum empty_like expand_dims flip full_like hstack iscomplexobj max mean min moveaxis ndim ones_like outer pad prod
    ravel repeat reshape result_type roll shape size split squeeze stack sum swapaxes take take_along_axis tensordot
    tile trace transpose tril triu vstack where zeros_like
""".split()  # noqa: SIM905
