"""Compilation: `jit`, how many compiled programs are kept, and what is set once in a process."""

import contextlib
import functools
from typing import Any

import numpy as np

from .library import is_jax, jax

PROGRAMS = 128  # how many compiled programs fnn keeps; each takes some megabytes and up to 200 of Linux's memory maps

_compiled = []  # a jitted function for each of its programs


def jit(f=None, *, static=()) -> Any:
    """`jax.jit` if an argument contains a JAX array, otherwise the plain function.

    The functions jitted here keep at most `PROGRAMS` programs between them. When there are more, all are dropped, and
    what is called again compiles again, so that a process can train any number of networks of different sizes.

    Args:
        f: the function. Without it, `jit` is a decorator that takes `static`.
        static: the names of the arguments that are static. Default: ().

    Returns:
        The compiled function.

    >>> jit(lambda x: x + 1)(np.zeros(2))
    array([1., 1.])
    """
    if f is None:
        return functools.partial(jit, static=static)
    if jax is None:
        return f

    @functools.wraps(f)
    def traced(*args, **kwargs):
        _compiled.append(compiled)  # JAX runs this once for each program
        return f(*args, **kwargs)

    compiled = jax.jit(traced, static_argnames=static)

    @functools.wraps(f)
    def call(*args, **kwargs):
        if not any(is_jax(leaf) for leaf in jax.tree.leaves((args, kwargs))):
            return f(*args, **kwargs)
        drop_programs(PROGRAMS)
        return compiled(*args, **kwargs)

    call.compiled = compiled  # type: ignore[attr-defined] - for counting compilations and reading the lowered program
    return call


def drop_programs(number=1):
    """Drop the compiled programs that functions of `jit` keep, if there are at least `number`.

    >>> drop_programs()
    """
    if len(_compiled) >= number:
        for function in set(_compiled):
            function.clear_cache()
        _compiled.clear()


@functools.cache
def keep_freed_memory():
    """Let NumPy's arrays have the memory of earlier ones: once in a process, before a run of many steps.

    Linux's `malloc` returns what lies beyond twice the largest block that was freed yet, here 32 MiB. By default that
    is so little that some megabytes of temporary arrays are mapped anew in each step, which takes longer than to fill
    them.
    """
    np.empty(2**24, np.uint8)


@contextlib.contextmanager
def any_number():
    """A context in which NaN and infinity are results like others, also with `jax_debug_nans` and `jax_debug_infs`."""
    if jax is None:
        yield
    else:
        with jax.debug_nans(False), jax.debug_infs(False):
            yield
