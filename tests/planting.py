"""What a planted fault is, and the changes that make one."""

from collections.abc import Callable
from typing import NamedTuple

from fnn import trees


class Fault(NamedTuple):
    what: str
    where: Callable  # the class or the module
    name: str  # of its function
    change: Callable  # from the function to the wrong one
    check: Callable


# ---- changes ---------------------------------------------------------------------------------------------------------


def instead(formula):
    """Another formula in its place."""
    return lambda f: formula


def result(g):
    """Its result, changed."""
    return lambda f: lambda *args, **options: g(f(*args, **options))


def times(c):
    """c times its result, leaf by leaf."""
    return result(lambda tree: trees.map(lambda leaf: c * leaf, tree))


def given(g):
    """Its arguments, changed."""
    return lambda f: lambda *args: f(*g(*args))
