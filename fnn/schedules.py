"""Schedules: learning rates that change over the steps, η(t).

A schedule is a record of numbers that is called with t, the number of steps taken so far, and can be used wherever an
optimizer takes a learning rate. Its numbers are leaves, like all hyperparameters: they may be traced, and `jax.vmap`
maps over them. `jax.jit`, `jax.vmap`, `jax.grad` and the like take a schedule itself, as they take a function. One of
your own extends `fnn.backend.Record`; a NamedTuple serves too, except that JAX compiles no tuple: with it, write
`jax.jit(schedule.__call__)`.

t may also be an array of steps, as for a plot. The rate is float32, or float64 if any of the numbers is. All times are
in steps, of which an epoch has ⌈n / batch_size⌉, and are exact up to 2²⁴, about 16 million. After its end a schedule
keeps its last value, unless its docstring says otherwise.
"""

import math
from typing import Annotated, Any

import numpy as np

from .backend import Record, namespace
from .errors import ArgumentError, KindError, shorten
from .static import Interval

__all__ = [
    "Constant",
    "CosineAnnealing",
    "CosineRestarts",
    "ExponentialDecay",
    "Join",
    "LinearWarmup",
    "OneCycle",
    "Piecewise",
    "PolynomialDecay",
    "StepDecay",
    "TimeBasedDecay",
]

NonNegative = Annotated[Any, Interval("[0, ∞)")]
Positive = Annotated[Any, Interval("(0, ∞)")]
AtLeastOne = Annotated[Any, Interval("[1, ∞)")]


class Constant(Record):
    """A constant rate, for use in a `Join`.

        η(t) = η₀

    Args:
        value: η₀ ≥ 0.

    >>> Constant(0.1)(np.array([0, 1000]))
    array([0.1, 0.1], dtype=float32)
    """

    value: NonNegative

    def __call__(self, count: Any) -> Any:
        _, t, value = _floats(count, self.value)
        return value + 0 * t


class TimeBasedDecay(Record):
    """A rate that falls like 1/t.

        η(t) = η₀ / (1 + d t)

    It decreases forever, slowly enough that Σ η = ∞ and fast enough that Σ η² < ∞.

    Args:
        initial: η₀ ≥ 0.
        decay: d ≥ 0, per step; the rate is halved after 1/d steps.

    Source: H. Robbins, S. Monro, "A stochastic approximation method" (1951), eqs. 26 and 27.

    >>> TimeBasedDecay(0.1, decay=0.01)(np.array([0, 100, 300]))
    array([0.1  , 0.05 , 0.025], dtype=float32)
    """

    initial: NonNegative
    decay: NonNegative

    def __call__(self, count: Any) -> Any:
        _, t, initial, decay = _floats(count, self.initial, self.decay)
        return initial / (1 + decay * t)


class StepDecay(Record):
    """A rate that is multiplied by a factor once every s steps.

        η(t) = η₀ f^⌊t / s⌋

    It decreases forever. Equivalent to PyTorch's `StepLR`.

    Args:
        initial: η₀ ≥ 0.
        factor: f > 0, usually 0.1 to 0.5.
        every: s ≥ 1, in steps.

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks"
    (2012), §5, which divided by 10 by hand.

    >>> StepDecay(0.8, factor=0.5, every=10)(np.array([0, 9, 10, 29]))
    array([0.8, 0.8, 0.4, 0.2], dtype=float32)
    """

    initial: NonNegative
    factor: Positive
    every: AtLeastOne

    def __call__(self, count: Any) -> Any:
        _, t, initial, factor, every = _floats(count, self.initial, self.factor, self.every)
        return initial * factor ** (t // every)


class ExponentialDecay(Record):
    """A rate that changes by the same factor in every step.

        η(t) = η₀ r^(t / s)

    This is `StepDecay` without the stairs, and equals it at t = 0, s, 2s, …. With r > 1 the rate grows, as in a
    learning-rate range test. It continues forever. Equivalent to Optax's `exponential_decay` with `transition_steps` s.

    Args:
        initial: η₀ ≥ 0.
        rate: r > 0, the factor over s steps.
        steps: s ≥ 1.

    >>> ExponentialDecay(0.8, rate=0.25, steps=10)(np.array([0, 5, 10, 20]))
    array([0.8 , 0.4 , 0.2 , 0.05], dtype=float32)
    """

    initial: NonNegative
    rate: Positive
    steps: AtLeastOne

    def __call__(self, count: Any) -> Any:
        _, t, initial, rate, steps = _floats(count, self.initial, self.rate, self.steps)
        return initial * rate ** (t / steps)


class PolynomialDecay(Record):
    """A rate that changes from one value to another as a power of time, by default linearly.

        η(t) = η₁ + (η₀ − η₁) (1 − t/s)ᵖ        and η₁ from t = s on

    Equivalent to Optax's `polynomial_schedule`.

    Args:
        initial: η₀ ≥ 0.
        final: η₁ ≥ 0.
        steps: s ≥ 1.
        power: p > 0. Default: 1.

    Source: W. Liu, A. Rabinovich, A. Berg, "ParseNet" (2015), §3.2, with p = 0.9 and η₁ = 0.

    >>> PolynomialDecay(0.4, 0.0, steps=10, power=2)(np.array([0, 5, 10, 99]))
    array([0.4, 0.1, 0. , 0. ], dtype=float32)
    """

    initial: NonNegative
    final: NonNegative
    steps: AtLeastOne
    power: Positive = 1

    def __call__(self, count: Any) -> Any:
        xp, t, initial, final, steps, power = _floats(count, self.initial, self.final, self.steps, self.power)
        left = xp.maximum(steps - t, 0) / steps
        # A power below 1 has an infinite derivative at 0, where the rate no longer changes.
        return final + (initial - final) * xp.where(left == 0, 0, xp.where(left == 0, 1, left) ** power)[()]


class CosineAnnealing(Record):
    """A rate that decreases along half a cosine wave: slowly, then fast, then slowly again.

        η(t) = η₁ + ½ (η₀ − η₁) (1 + cos(π t/s))        and η₁ from t = s on

    Equivalent to Optax's `cosine_decay_schedule`, whose `alpha` is η₁ / η₀; PyTorch's `CosineAnnealingLR` rises again
    after its end.

    Args:
        initial: η₀ ≥ 0.
        steps: s ≥ 1.
        final: η₁ ≥ 0. Default: 0.

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), eq. 5, without
    restarts.

    >>> CosineAnnealing(0.4, steps=10)(np.array([0, 5, 10, 99])).round(4)
    array([0.4, 0.2, 0. , 0. ], dtype=float32)
    """

    initial: NonNegative
    steps: AtLeastOne
    final: NonNegative = 0

    def __call__(self, count: Any) -> Any:
        xp, t, initial, steps, final = _floats(count, self.initial, self.steps, self.final)
        return _cosine(xp, initial, final, xp.maximum(steps - t, 0) / steps)


class CosineRestarts(Record):
    """Cosine annealing with restarts, over periods that may grow longer each time.

        η(t) = η₁ + ½ (η₀ − η₁) (1 + cos(π (t − Sᵢ) / (Sᵢ₊₁ − Sᵢ)))        where Sᵢ ≤ t < Sᵢ₊₁

    with restarts at Sᵢ = T₀ (1 + m + … + mⁱ⁻¹), rounded to whole steps. It continues forever; after a hundred thousand
    steps, float32 rounding may shift a restart by one step. Equivalent to PyTorch's `CosineAnnealingWarmRestarts`,
    which takes only integers.

    Args:
        initial: η₀ ≥ 0.
        steps: T₀ ≥ 1, the length of the first period.
        final: η₁ ≥ 0, which is approached but not reached, since step Sᵢ starts at η₀ again. Default: 0.
        period_factor: m ≥ 1, the paper's T_mult. Default: 1, for periods of equal length.

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), eq. 5.

    >>> CosineRestarts(0.4, steps=10, period_factor=2)(np.array([0, 5, 10, 20, 30])).round(4)
    array([0.4, 0.2, 0.4, 0.2, 0.4], dtype=float32)
    """

    initial: NonNegative
    steps: AtLeastOne
    final: NonNegative = 0
    period_factor: AtLeastOne = 1

    def __call__(self, count: Any) -> Any:
        xp, t, initial, steps, final, factor = _floats(count, self.initial, self.steps, self.final, self.period_factor)
        more = xp.maximum(factor - 1, 1e-20)  # for m this close to 1, Sᵢ = T₀ (mⁱ − 1)/(m − 1) is T₀ i to all digits
        log_factor = xp.log1p(more)
        # Sᵢ ≤ t is decided between two steps, where rounding changes nothing, and at .49, since Sᵢ may well end in .5.
        i = xp.floor(xp.log1p((t + 0.49) * more / steps) / log_factor)
        start, end = (xp.floor(steps * xp.expm1(j * log_factor) / more + 0.51) for j in (i, i + 1))
        return _cosine(xp, initial, final, xp.clip((end - t) / xp.maximum(end - start, 1), 0, 1))


class LinearWarmup(Record):
    """A rate that grows linearly, so that the first steps, when everything is still random, are small.

        η(t) = a + (η₁ − a) t/s        and η₁ from t = s on

    Another schedule usually follows: see `Join`.

    Args:
        peak: η₁ ≥ 0.
        steps: s ≥ 1.
        start: a ≥ 0. Default: 0, for which the very first step changes nothing.

    Source: P. Goyal et al., "Accurate, large minibatch SGD" (2017), §2.2.

    >>> LinearWarmup(0.4, steps=4)(np.array([0, 1, 4, 99]))
    array([0. , 0.1, 0.4, 0.4], dtype=float32)
    """

    peak: NonNegative
    steps: AtLeastOne
    start: NonNegative = 0

    def __call__(self, count: Any) -> Any:
        xp, t, peak, steps, start = _floats(count, self.peak, self.steps, self.start)
        return start + (peak - start) * xp.minimum(t / steps, 1)


class OneCycle(Record):
    """A rate that rises and then falls far below its start, each along half a cosine wave.

        η(t) = η₀ + ½ (η₁ − η₀) (1 − cos(π t/u))                    up to t = u = c s,   η₀ = η₁ / d
        η(t) = η₂ + ½ (η₁ − η₂) (1 + cos(π (t − u)/(s − u)))        up to t = s,         η₂ = η₀ / e

    and η₂ from there on. The defaults and the curve are those of Optax's `cosine_onecycle_schedule` (which rounds u
    down to a whole step) and of PyTorch's `OneCycleLR` (whose peak and end are one step earlier, and which also changes
    the momentum).

    Args:
        peak: η₁ ≥ 0.
        steps: s ≥ 1.
        pct_start: c in (0, 1), the fraction of the steps in which the rate rises. Default: 0.3.
        div_factor: d > 0. Default: 25.
        final_div_factor: e > 0. Default: 1e4.

    Source: L. Smith, N. Topin, "Super-convergence" (2018), where the rate changes linearly.

    >>> OneCycle(1.0, steps=10, pct_start=0.4)(np.array([0, 2, 4, 7, 10]))
    array([4.0e-02, 5.2e-01, 1.0e+00, 5.0e-01, 4.0e-06], dtype=float32)
    """

    peak: NonNegative
    steps: AtLeastOne
    pct_start: Annotated[Any, Interval("(0, 1)")] = 0.3
    div_factor: Positive = 25
    final_div_factor: Positive = 1e4

    def __call__(self, count: Any) -> Any:
        xp, t, peak, steps, pct_start, div, final_div = _floats(count, *self)
        top, initial = pct_start * steps, peak / div
        up = _cosine(xp, initial, peak, xp.maximum(top - t, 0) / top)
        down = _cosine(xp, peak, initial / final_div, xp.maximum(steps - t, 0) / (steps - top))
        return xp.where(t < top, up, down)[()]


class Piecewise(Record):
    """Constant rates, one after another.

        η(t) = ηᵢ        where bᵢ ≤ t < bᵢ₊₁        i = 0, …, k

    Optax's `piecewise_constant_schedule` takes factors instead of values.

    Args:
        boundaries: the k steps b₁ < b₂ < … at which the rate changes.
        values: the k + 1 rates η₀, …, ηₖ.

    >>> Piecewise((10, 20), (0.4, 0.2, 0.1))(np.array([0, 9, 10, 20]))
    array([0.4, 0.4, 0.2, 0.1], dtype=float32)
    """

    boundaries: NonNegative
    values: NonNegative

    def __call__(self, count: Any) -> Any:
        _fit("Piecewise", "values", self.values, self.boundaries)
        xp, t, rate, *values = _floats(count, *self.values)
        for boundary, value in zip(self.boundaries, values, strict=True):
            rate = xp.where(t < boundary, rate, value)[()]
        return rate


class Join(Record):
    """Schedules one after another, each counting from its own start.

        η(t) = ηᵢ(t − bᵢ)        where bᵢ ≤ t < bᵢ₊₁        i = 0, …, k        b₀ = 0

    Equivalent to Optax's `join_schedules`.

    Args:
        schedules: the k + 1 schedules, such as a warm-up and a decay.
        boundaries: the k steps b₁ < b₂ < … at which the next one starts; if b is not whole, it is rounded up.

    >>> warm_up, fall = LinearWarmup(0.4, steps=4), CosineAnnealing(0.4, steps=10)
    >>> Join((warm_up, fall), boundaries=(4,))(np.array([0, 2, 4, 9, 14])).round(4)
    array([0. , 0.2, 0.4, 0.2, 0. ], dtype=float32)
    """

    schedules: Any
    boundaries: NonNegative

    def __call__(self, count: Any) -> Any:
        _fit("Join", "schedules", self.schedules, self.boundaries)
        for i, schedule in enumerate(self.schedules):
            if not callable(schedule):
                raise KindError(
                    f"Join.schedules[{i}]: expected a schedule such as Constant(0.1), got {shorten(schedule)}"
                )
        rate = self.schedules[0](count)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            xp = namespace(count, boundary, rate)
            begin = xp.asarray(xp.ceil(boundary), np.int32)[()]
            rate = xp.where(count < begin, rate, schedule(xp.maximum(count - begin, 0)))[()]
        return rate


def _floats(count, *numbers):
    """The namespace, then t and the numbers of a schedule in one dtype: float32, or float64 if any number has it."""
    xp = namespace(count, *numbers)
    wide = any(hasattr(number, "dtype") and xp.asarray(number).dtype == np.float64 for number in numbers)
    dtype = np.float64 if wide else np.float32
    return xp, *(xp.asarray(number, dtype)[()] for number in (count, *numbers))


def _cosine(xp, start, end, left):
    """From start (left = 1) to end (left = 0) along a cosine, by ½ (1 − cos x) = sin²(x/2), which cancels no digits."""
    return end + (start - end) * xp.sin(0.5 * math.pi * left) ** 2


def _fit(schedule, what, parts, boundaries):
    if len(parts) != len(boundaries) + 1:
        raise ArgumentError(
            f"{schedule}: expected one more of {what} than of boundaries, got {len(parts)} and {len(boundaries)}"
        )
