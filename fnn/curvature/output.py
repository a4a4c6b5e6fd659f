"""Where curvature begins: at the output, as errors e that are sent back.

Each matrix here but the Hessian is a sum of outer products of gradients, one for each example n and column r of errors:

    Σₙ sₙ Σᵣ gₙᵣ gₙᵣᵀ        gₙᵣ = Jₙᵀ eₙᵣ        Jₙ = ∂predictionₙ/∂θ        sₙ = wₙ / Σ w

    kind         errors e (N, ..., K)                                                        columns
    ggn          those of S, with S Sᵀ = ∂²ℓ/∂prediction²                                    R, at each position of the
                                                                                             output
    fisher       those of S at the loss's `fisher_target`; sampled: δ of a drawn target      the same; sampled: samples
    empirical    δ of the target                                                             1

Sampled, the ggn has columns S ε for random signs ε. The columns are made as they are needed, a few at a time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from .. import gate, random
from ..backend import namespace
from ..errors import ArgumentError, KindError, integer, shorten

KINDS = ("ggn", "fisher", "empirical")


def check_kind(kind, samples, kinds=KINDS, where=""):
    """Raise unless kind and samples are what the docstrings say."""
    if kind not in kinds:
        raise ArgumentError(f"{where}kind: expected one of {kinds}, got {shorten(kind)}")
    if samples is not None:
        integer(f"{where}samples", samples, least=1)
        if kind == "empirical":
            raise ArgumentError(
                f"{where}samples: expected None for kind='empirical', whose targets are those of the data"
            )


def sample_key_for(samples, key, x):
    """The key of the samples on the backend of x; raises if there is none where one is needed."""
    if samples is None:
        return None
    if key is None:
        raise KindError("sample_key: expected a key for the samples, such as fnn.random.key(0), got None")
    return gate.key_for(key, x)


class Columns(NamedTuple):
    """Errors at the output: how many, and the function `i -> e (N, ..., K)`."""

    number: int
    column: Callable


def columns_of(loss, prediction, y, kind, samples=None, key=None) -> Columns:
    """The errors of a kind, for a prediction (N, ..., K) in float32 or wider."""
    xp = namespace(prediction)
    if kind == "empirical":
        return Columns(1, lambda i: loss.delta(prediction, y))
    if kind == "fisher" and samples is not None:

        def drawn(i):
            target = loss.sample(random.fold_in(key, i), prediction, y)
            return loss.delta(prediction, target) / math.sqrt(samples)

        return Columns(samples, drawn)
    root = loss.root(prediction, loss.fisher_target(prediction, y) if kind == "fisher" else y)
    if samples is not None:

        def mixed(i):
            shape = (*root.shape[:-2], 1, root.shape[-1]) if root.ndim > 2 else root.shape
            return (root * signs(random.fold_in(key, i), shape, root.dtype)).sum(axis=-1) / math.sqrt(samples)

        return Columns(samples, mixed)
    width = root.shape[-1]
    places = prediction.shape[1:-1]
    if not places:
        return Columns(width, lambda i: xp.take(root, i, axis=-1))
    here = xp.arange(math.prod(places)).reshape(*places, 1)
    return Columns(
        math.prod(places) * width, lambda i: xp.where(here == i // width, xp.take(root, i % width, axis=-1), 0)
    )


def signs(key, shape, dtype):
    """−1 or 1, each with probability ½."""
    draw = random.bernoulli(key, 0.5, shape)
    return namespace(draw).where(draw, 1, -1).astype(dtype)
