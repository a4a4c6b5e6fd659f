"""A derivative by hand beside one by another method, which `fnn.testing` describes: the comparison, and its report."""

import contextlib
from typing import Any

import numpy as np

from . import backend, checks, examples, trees
from .backend import is_floating
from .errors import ArgumentError, ShapeError, real, shorten

METHODS = ("jax", "complex", "difference", "taylor")
TOLERANCES = {"jax": 1e-12, "complex": 1e-12, "difference": 1e-7, "taylor": 1e-7}  # in float64; in float32 1e-5
ENTRIES = 256  # of a leaf, that are compared one by one


def floating_inputs(x) -> dict:
    """The inputs that have a derivative, by name."""
    return {name: a for name, a in examples.parts("x", x) if is_floating(a.dtype)}


class Check:
    """One check: how and where it is computed, and how it reports a failure."""

    def __init__(self, subject, method, on, dtype, tolerance, rng):
        method = ("difference" if backend.jax is None else "jax") if method is None else method
        if method not in METHODS:
            raise ArgumentError(f"method: expected one of {METHODS}, got {shorten(method)}")
        on = ("jax" if method == "jax" else "numpy") if on is None else on
        if on not in ("jax", "numpy"):
            raise ArgumentError(f"on: expected 'jax' or 'numpy', got {shorten(on)}")
        if "jax" in (method, on):
            backend.need_jax("the gradient check by jax")
        self.subject, self.method, self.on, self.dtype, self.rng = subject, method, on, dtype, rng
        usual = TOLERANCES[method] if dtype == np.float64 else 1e-5
        self.tolerance = usual if tolerance is None else real("tolerance", tolerance, least=0)

    def __enter__(self):
        self.context = contextlib.nullcontext() if backend.jax is None else backend.jax.enable_x64(True)
        self.context.__enter__()
        self.xp = backend.jnp if self.on == "jax" else np
        return self

    def __exit__(self, *error):
        self.context.__exit__(*error)

    def array(self, name, value) -> Any:
        """The value as an array on the backend, in the dtype if it is floating."""
        value = checks.as_array(name, value, self.xp)
        return value.astype(self.dtype) if is_floating(value.dtype) else value

    def inputs(self, x) -> Any:
        """Inputs (N, ...), an array or several, as arrays on the backend."""
        x = examples.each(self.array, "x", x)
        sizes = {a.shape[:1] for _, a in examples.parts("x", x)}
        if len(sizes) != 1 or sizes <= {(), (0,)}:
            got = ", ".join(f"{name} of shape {a.shape}" for name, a in examples.parts("x", x))
            raise ShapeError(f"x: expected the shape of an input, or inputs (N, ...), got {got}")
        return x

    def errors_of(self, x, dx) -> dict:
        """dx of the inputs that have a derivative, by name."""
        of_x = floating_inputs(x)
        if not of_x:
            return {}
        found = dict(examples.parts("x", dx))
        self.that(
            found.keys() == dict(examples.parts("x", x)).keys(), f"dx of {shorten(list(found))}, not in the form of x"
        )
        for name, a in of_x.items():
            self.that(np.shape(found[name]) == a.shape, f"dx of shape {np.shape(found[name])} for {name}, {a.shape}")
        return {name: found[name] for name in of_x}

    def that(self, condition, otherwise):
        if not condition:
            raise AssertionError(f"{self.subject}: {otherwise}")

    def structure(self, what, actual, expected):
        try:
            trees.same_structure(what, actual, expected)
        except ShapeError as error:
            raise AssertionError(f"{self.subject}: {error}") from None

    def same(self, what, actual, expected, scales=None):
        """Check that two results by hand agree, leaf by leaf, up to rounding relative to the scales or themselves."""
        self.structure(what, actual, expected)
        scales = trees.leaves(expected if scales is None else scales)
        for (place, a), b, scale in zip(trees.paths(actual, "it"), trees.leaves(expected), scales, strict=True):
            self.close(f"{what} {place}", a, b, scale)

    def close(self, what, actual, expected, scale=0.0):
        """Check that two arrays agree up to rounding."""
        error, largest = _apart(actual, expected, scale)
        self.that(self.agree(actual, expected, scale), f"{what}: by {error:.1e} of {largest:.1e}")

    def agree(self, actual, expected, scale=0.0):
        """Whether two arrays agree up to rounding."""
        error, largest = _apart(actual, expected, scale)
        equal = np.array_equal(np.asarray(actual), np.asarray(expected), equal_nan=True)
        return error <= 1e4 * np.finfo(self.dtype).eps * largest or equal

    def last_digit(self, values):
        """The values, each perturbed by up to a rounding error."""
        return values * (1 + self.rng.uniform(-1, 1, np.shape(values)) * float(np.finfo(self.dtype).eps))

    def compare(self, f, point, by_hand, c, noise=None):
        """Compare ∂s/∂θ by hand, `by_hand(c)`, with that of the method, leaf by leaf.

        `point` holds θ by name. `noise` measures rounding: the gradient by hand again, with last digits changed.
        """
        hand = by_hand(c)
        for root, tree in point.items():
            self.structure(f"gradient of {root}", hand[root], tree)
        noise = noise or (lambda: by_hand(self.array("cotangent", self.last_digit(np.asarray(c, np.float64)))))
        places = [place for root in sorted(point) for place, _ in trees.paths(point[root], root)]
        wide, c = trees.map(lambda a: np.asarray(a, np.float64), point), np.asarray(c, np.float64)
        fixed = trees.leaves({r: trees.map_learnt(lambda _: False, t, fixed=lambda _: True) for r, t in wide.items()})
        of_jax = self._jax(f, wide, c) if self.method == "jax" else None

        def s(i, theta):
            """s with leaf i replaced, minus its value at θ, which may be large."""
            numbers = iter(range(len(places)))
            moved = trees.map(lambda a: self.xp.asarray(theta if next(numbers) == i else a), wide)
            with np.errstate(all="ignore"):  # a step may leave the domain
                return (c * (np.asarray(f(moved)) - at)).sum()

        at = np.asarray(f(trees.map(self.xp.asarray, wide)))
        rounding_of_s = float(np.finfo(np.float64).eps * np.abs(c * at).sum())

        for i, (place, theta, actual) in enumerate(zip(places, trees.leaves(wide), trees.leaves(hand), strict=True)):
            self.that(actual.dtype == self.dtype, f"gradient of {place} in {actual.dtype}, expected {self.dtype}")
            actual = np.asarray(actual, np.float64)
            if self.method == "taylor" and not fixed[i] and self._falls_fourfold(s, i, theta, actual):
                continue
            chosen = self._entries(theta)
            mine, unsure = np.array([actual[j] for j in chosen]), 0.0
            if fixed[i]:
                expected = np.zeros(len(chosen))
            elif of_jax is not None:
                expected = np.array([of_jax[i][j] for j in chosen])
            elif self.method == "complex":
                expected = np.array([self._complex_step(s, i, theta, j) for j in chosen])
            else:
                pairs = np.array([self._difference(s, i, theta, j) for j in chosen]).reshape(-1, 2)
                expected, unsure = pairs[:, 0], 8 * rounding_of_s / pairs[:, 1]
            largest = _largest(expected[np.isfinite(expected)])
            with np.errstate(invalid="ignore"):
                errors = np.where(mine == expected, 0.0, np.abs(mine - expected) - unsure)
                if not errors.size or errors.max() <= self.tolerance * largest:
                    continue
                runs = [np.asarray(trees.leaves(noise())[i], np.float64) for _ in range(5)]
                if errors.max() <= 32 * max(_largest(run - runs[0]) for run in runs):
                    continue
            worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
            ratio = errors[worst] / largest if largest else np.inf
            values = chosen[worst], mine[worst], expected[worst], ratio
            self._fail(place, theta, *values, lambda theta, i=i: s(i, theta), rounding_of_s)

    def _falls_fourfold(self, s, i, theta, actual):
        """Whether Taylor's remainder falls fourfold; False too where s is linear, and the remainder says nothing."""
        v = self.rng.normal(size=theta.shape) * np.where(theta == 0, _largest(theta) or 1.0, theta)
        return 1.9 < taylor_slope(lambda e: s(i, theta + e * v), (actual * v).sum()) < np.inf

    def _entries(self, theta):
        """The indices of the entries to compare."""
        every = list(np.ndindex(theta.shape))
        if self.method == "jax" or len(every) <= ENTRIES:
            return every
        return [every[k] for k in np.sort(self.rng.choice(len(every), ENTRIES, replace=False))]

    def _jax(self, f, wide, c):
        """jax.vjp, in float64."""
        jax = backend.jax
        wide = trees.map(backend.jnp.asarray, wide)
        return [np.asarray(g) for g in trees.leaves(jax.jit(lambda p, c: jax.vjp(f, p)[1](c)[0])(wide, c))]

    def _complex_step(self, s, i, theta, j):
        """∂s/∂θⱼ without a subtraction."""
        value = s(i, _moved(theta.astype(np.complex128), j, 1e-30j))
        if not np.iscomplexobj(value) and s(i, theta + self.rng.normal(size=theta.shape)) == 0:
            return 0.0  # an input that is not used
        self.that(np.iscomplexobj(value), "it turns complex numbers into real ones; use another method")
        return value.imag / 1e-30

    def _difference(self, s, i, theta, j):
        """∂s/∂θⱼ by Richardson's extrapolation, and the step used, which is smaller near a kink."""
        guesses = []
        for h in (1e-3, 1e-4, 1e-5):
            h *= max(1.0, abs(theta[j]))
            near, far = ((s(i, _moved(theta, j, e)) - s(i, _moved(theta, j, -e))) / (2 * e) for e in (h / 2, h))
            guesses.append((abs(near - far) if np.isfinite(near - far) else np.inf, (4 * near - far) / 3, h))
            if guesses[-1][0] <= 1e-6 * abs(near):
                break
        return min(guesses)[1:]

    def _fail(self, place, theta, j, actual, expected, ratio, s, rounding):
        h = 1e-6 * max(1.0, abs(theta[j]))
        above, at, below = (s(_moved(theta, j, e)) for e in (h, 0.0, -h))
        left, right = np.real(at - below) / h, np.real(above - at) / h
        kink = abs(right - left) > max(1e-3 * max(abs(left), abs(right)), 16 * rounding / h)
        index = "[" + ", ".join(str(k) for k in j) + "]" if j else ""
        method = {"jax": "jax.vjp", "complex": "complex step", "taylor": "difference"}.get(self.method, self.method)
        raise AssertionError(
            f"{self.subject}: the derivative by hand is not that of the formula\n"
            f"  leaf          {place}, shape {theta.shape}\n"
            f"  index         {place}{index} = {theta[j]:.9g}\n"
            f"  by hand       {actual:.15g}\n"
            f"  {method:<13} {expected:.15g}\n"
            f"  ratio         {ratio:.1e}: largest error over the leaf's largest entry; allowed is {self.tolerance:.0e}"
            + (f"\n  a kink        the slope is {left:.6g} from below and {right:.6g} from above" if kink else "")
        )


def taylor_slope(s: Any, derivative: Any, start: float = 1e-2, halvings: int = 12) -> float:
    """log₂ of the factor by which |s(ε) − s(0) − ε s'(0)| falls as ε halves.

    It is 2 if the derivative is right and s is smooth.

    Args:
        s: a function of ε.
        derivative: s'(0), the derivative to test.
        start: the largest ε. Default: 0.01.
        halvings: how many values of ε to try at most; smaller ones are ignored once the remainder is lost in rounding.
            Default: 12.

    Returns:
        The slope; infinite if there is no remainder beyond rounding, that is, if s is linear.

    >>> import math
    >>> round(taylor_slope(math.exp, 1.0), 1), round(taylor_slope(math.exp, 1.001), 1)
    (2.0, 1.0)
    """
    at = s(0.0)
    values = [(e, s(e)) for e in (start * 0.5**k for k in range(halvings))]
    rounding = 1e3 * np.finfo(np.float64).eps * max(abs(at), max(abs(value) for _, value in values))
    remainders = [abs(value - at - e * derivative) for e, value in values]
    seen = [r for r in remainders if r > rounding]
    if len(seen) < 2 or remainders[0] <= rounding:
        return np.inf
    last = seen[-4:]  # the smallest steps: the remainder is closest to its leading term
    return float(np.median(np.log2(np.array(last[:-1]) / np.array(last[1:]))))


def _apart(actual, expected, scale):
    """The largest error, and what it is to be compared with."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return _largest(actual - expected), max(_largest(scale), _largest(expected))


def _moved(theta, j, by):
    """θ with entry j shifted."""
    moved = np.array(theta)
    moved[j] += by
    return moved


def _largest(values):
    """The largest magnitude; 0 for an empty array."""
    values = np.abs(np.asarray(values, np.float64))
    return float(values.max()) if values.size else 0.0
