"""Every activation and every cost, and their derivatives, beside 40 digits of mpmath: in all dtypes, tails and far out.

A formula may be off by a few ulp of its result, 4 ε |f|. Where it may be off by more, the table says so, and why:

    argument    what is rounded before an exponential counts, relatively, as many times ε as it is large: z/α, z²/2, 2u
    output      a derivative that is a formula of the output a has no more digits than 1 − a: a few ε of its maximum, 1
    gate        z s (1 − s), the derivative of a gate s, has the digits of 1 − s: ε |z|

Results below the smallest normal number may be 0, as XLA makes them, also where they are multiplied by z afterwards.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import mpmath as mp
import numpy as np
import pytest
from helpers import BACKENDS, THOROUGH, compiled, on, wide

import fnn
from fnn import backpropagation
from fnn.backend import jax
from fnn.layers.activations import Activation
from fnn.losses import Loss
from fnn.static import registered

mp.mp.dps = 40
F, exp, log = mp.mpf, mp.exp, mp.log
DTYPES = [("numpy", "float16"), ("numpy", "float32"), ("numpy", "float64")]
if "jax" in BACKENDS:
    DTYPES += [("jax", name) for name in ("bfloat16", *(("float16", "float32", "float64") if THOROUGH else ()))]
EACH = pytest.mark.parametrize(("backend", "dtype"), DTYPES, ids=map("-".join, DTYPES))


def limits(dtype):
    """ε, the smallest normal and the largest finite number of a dtype."""
    info = (np if jax is None else jax.numpy).finfo(dtype)
    return float(info.eps), float(info.smallest_normal), float(info.max)


def check(place, found, wanted, dtype, slack=4.0, absolute=0.0, size=1.0):
    """Raise unless |found − wanted| ≤ ε (slack |wanted| + absolute), but for what over- or underflows."""
    eps, tiny, most = limits(dtype)
    if mp.isnan(wanted):
        assert np.isnan(found), place
    elif abs(wanted) > most * (1 - min(0.5, slack * eps)):
        assert abs(found) > most * (1 - min(0.75, 2 * slack * eps)), (*place, found)
        assert (found > 0) == (wanted > 0), (*place, found)
    else:
        assert np.isfinite(found), (*place, found)
        error, allowed = abs(F(found) - wanted), eps * (slack * abs(wanted) + absolute) + tiny * max(1, size)
        assert error <= allowed, (*place, found, float(wanted), float(error / allowed))


# ---- the functions, in forms that lose no digits ---------------------------------------------------------------------


def sigma(z):
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))


def bell(z):
    """σ'(z)."""
    e = exp(-abs(z))
    return e / (1 + e) ** 2


def tanh(z):
    return mp.sign(z) * -mp.expm1(-2 * abs(z)) / (1 + exp(-2 * abs(z)))


def plus(z):
    """log(1 + eᶻ)."""
    return max(z, 0) + mp.log1p(exp(-abs(z)))


def below(z, alpha=1):
    """α (e^(z/α) − 1) for z < 0, else z."""
    return z if z >= 0 else alpha * mp.expm1(max(z / alpha, -9999))


def normal(z):
    """Φ(z)."""
    return mp.erfc(-max(min(z, 999), -999) / mp.sqrt(2)) / 2


def squareplus(z, b):
    root = mp.sqrt(z * z + b)
    return (z + root) / 2 if z >= 0 else b / (root - z) / 2


def isrlu(alpha):
    return (
        lambda z: z if z >= 0 else z / mp.sqrt(1 + alpha * z * z),
        lambda z: F(1) if z >= 0 else (1 + alpha * z * z) ** F(-1.5),
    )


def twice(z):
    """2u of the approximate Gelu, and its derivative."""
    k, c = mp.sqrt(8 / mp.pi), F("0.044715")
    return k * (z + c * z**3), k * (1 + 3 * c * z * z)


def mish(z):
    """w = tanh(log(1 + eᶻ)), 1 − w, both as a quotient."""
    e = exp(-abs(z))
    large, rest = (1 + 2 * e, 2 * e * e) if z >= 0 else (e * (e + 2), 2)
    return large / (large + rest), rest / (large + rest)


def mish_slope(z):
    w, rest = mish(z)
    return w + z * rest * (1 + w) * sigma(z)


def logarithm(z):
    """SoftExponential(−¼), its derivatives by z and α, and 1/u."""
    w = z - F(0.25)
    u = 1 + w / 4
    return (4 * log(u), 1 / u, -4 * w / u + 16 * log(u) + 1 / u) if u > 0 else (mp.nan,) * 3


LAMBDA, ALPHA = F("1.0507009873554804934193349852946"), F("1.6732632423543772848170429916717")
RRELU = (F(1) / 8 + F(1) / 3) / 2


class Row(NamedTuple):
    """A layer, f, f', how much its argument is rounded, what f' may be off by in ε, and the derivatives by its
    parameters."""

    layer: Activation
    function: Callable
    slope: Callable
    argument: Callable = lambda z: 0
    absolute: Callable = lambda z: 0
    partials: tuple = ()


output = lambda z: 4
gate = lambda z: 4 + 4 * min(abs(z), 800)
near = lambda z: 4 + 4 * min(abs(z), 40) * twice(min(abs(z), 40))[1] * bell(0)
ROWS = [
    Row(fnn.Identity(), lambda z: z, lambda z: F(1)),
    Row(fnn.BinaryStep(), lambda z: F(z > 0), lambda z: F(0)),
    Row(fnn.Sign(), lambda z: F(1 if z >= 0 else -1), lambda z: F(0)),
    Row(fnn.Sigmoid(), sigma, bell, absolute=output),
    Row(fnn.BipolarSigmoid(), lambda z: tanh(z / 2), lambda z: 2 * bell(z), absolute=output),
    Row(fnn.Tanh(), tanh, lambda z: 4 * bell(2 * z), absolute=output),
    Row(fnn.HardTanh(), lambda z: min(max(z, F(-1)), F(1)), lambda z: F(abs(z) <= 1)),
    Row(fnn.HardSigmoid(), lambda z: min(max(z + 3, F(0)), F(6)) / 6, lambda z: F(abs(z) < 3) / 6),
    Row(fnn.ArcTan(), mp.atan, lambda z: 1 / (1 + z * z)),
    Row(fnn.Softsign(), lambda z: z / (1 + abs(z)), lambda z: 1 / (1 + abs(z)) ** 2),
    Row(fnn.Relu(), lambda z: max(z, F(0)), lambda z: F(z > 0)),
    Row(fnn.Relu6(), lambda z: min(max(z, F(0)), F(6)), lambda z: F(0 < z < 6)),
    Row(fnn.LeakyRelu(), lambda z: z if z >= 0 else z * F(0.01), lambda z: F(1 if z >= 0 else 0.01)),
    Row(fnn.RRelu(), lambda z: z if z >= 0 else z * RRELU, lambda z: F(1) if z >= 0 else RRELU),
    Row(fnn.Elu(), below, lambda z: exp(min(z, F(0)))),
    Row(fnn.Elu(0.5), lambda z: max(z, below(z) / 2), lambda z: F(1) if z > 0 else exp(z) / 2),
    Row(fnn.Celu(), below, lambda z: exp(min(z, F(0)))),
    Row(fnn.Celu(0.1), lambda z: below(z, F(0.1)), lambda z: exp(min(z / F(0.1), F(0))), lambda z: max(-10 * z, 0)),
    Row(
        fnn.Selu(),
        lambda z: LAMBDA * (z if z > 0 else ALPHA * below(z)),
        lambda z: LAMBDA * (1 if z > 0 else ALPHA * exp(z)),
    ),
    Row(fnn.Softplus(), plus, sigma),
    Row(fnn.Squareplus(), lambda z: squareplus(z, 4), lambda z: squareplus(z, 4) / mp.sqrt(z * z + 4)),
    Row(fnn.Squareplus(1e3), lambda z: squareplus(z, 1000), lambda z: squareplus(z, 1000) / mp.sqrt(z * z + 1000)),
    Row(fnn.Isrlu(), *isrlu(1)),
    Row(fnn.Isrlu(3.0), *isrlu(3)),
    Row(fnn.LogSigmoid(), lambda z: -plus(-z), lambda z: sigma(-z)),
    Row(
        fnn.Gelu(),
        lambda z: z * normal(z),
        lambda z: normal(z) + z * exp(-z * z / 2) / mp.sqrt(2 * mp.pi),
        argument=lambda z: min(z * z, 1600) if z < 0 else 0,
        absolute=output,
    ),
    Row(
        fnn.Gelu(approximate=True),
        lambda z: z * sigma(twice(z)[0]),
        lambda z: sigma(twice(z)[0]) + z * bell(twice(z)[0]) * twice(z)[1],
        argument=lambda z: min(2 * abs(twice(z)[0]), 1600) if z < 0 else 0,
        absolute=near,
    ),
    Row(fnn.Swish(), lambda z: z * sigma(z), lambda z: sigma(z) + z * bell(z), absolute=gate),
    Row(
        fnn.Swish(2.0, learnt=True),
        lambda z: z * sigma(2 * z),
        lambda z: sigma(2 * z) + 2 * z * bell(2 * z),
        absolute=gate,
        partials=(lambda z: z * z * bell(2 * z),),
    ),
    Row(
        fnn.HardSwish(),
        lambda z: z * min(max(z + 3, F(0)), F(6)) / 6,
        lambda z: F(z >= 3) if abs(z) >= 3 else (2 * z + 3) / 6,
    ),
    Row(fnn.Mish(), lambda z: z * mish(z)[0], mish_slope, absolute=lambda z: 2 * gate(z)),
    Row(
        fnn.PRelu(),
        lambda z: z if z >= 0 else z / 4,
        lambda z: F(1 if z >= 0 else 0.25),
        partials=(lambda z: min(z, F(0)),),
    ),
    Row(
        fnn.PElu(),
        below,
        lambda z: exp(min(z, F(0))),
        partials=(below, lambda z: -z * exp(min(z, F(0)))),
    ),
    Row(fnn.SoftExponential(), lambda z: z, lambda z: F(1), partials=(lambda z: z * z / 2 + 1,)),
    Row(
        fnn.SoftExponential(0.5),
        lambda z: 2 * mp.expm1(max(z / 2, -9999)) + F(0.5),
        lambda z: exp(z / 2),
        absolute=lambda z: 8,
        partials=(lambda z: 4 * (1 + (z / 2 - 1) * exp(z / 2)) + 1,),
    ),
    Row(
        fnn.SoftExponential(-0.25),
        *(lambda z, i=i: logarithm(z)[i] for i in range(2)),
        argument=lambda z: 8 / min(1, abs(z + 3.75)),  # the distance from its pole, −3.75
        partials=(lambda z: logarithm(z)[2],),
    ),
]
OF_ROWS = {fnn.Softmax, fnn.LogSoftmax, fnn.Glu}  # of several entries together

GRID = [0.0, 1e-300, 1e-7, 0.1, 0.75, 1, 2.5, 3, 4, 6, 8, 12, 18, 25, 40, 88, 300, 6e4, 1e20, 3e38, 1e300]
if THOROUGH:
    GRID += [1e-30, 1e-3, 0.25, 0.5, 1.5, 2, 5, 7, 10, 15, 20, 30, 60, 80, 110, 700, 1e3, 1e4, 1e10, 1e100]
GRID = np.sort(GRID)


def grid(dtype):
    """Arguments that the dtype holds, of both signs, then NaN and ±∞: (n, 1)."""
    _, tiny, _ = limits(dtype)
    with np.errstate(over="ignore", under="ignore"):
        z = np.concatenate([-GRID[::-1], GRID]).astype(dtype)
    held = np.isfinite(z) & ((z == 0) | (abs(z.astype(float)) >= tiny))
    return np.concatenate([z[held], np.array([np.nan, -np.inf, np.inf], dtype)])[:, None]


def of_all(z, params):
    """Of every row, a, dz for δ = 1, and the derivatives by the parameters, entry by entry."""
    found = []
    for row, p in zip(ROWS, params, strict=True):
        a, residuals = row.layer.forward(p, z)
        dz = row.layer.backward(p, residuals, fnn.backend.namespace(a).ones_like(a))
        found.append((a, dz, *(row.layer.partials(p, residuals) if row.partials else ())))
    return found


def dtype_of(backend, dtype):
    return np.dtype(jax.numpy.bfloat16 if dtype == "bfloat16" else dtype)


@functools.cache
def found(backend, dtype):
    """The arguments, and what comes of them, as float64."""
    z = grid(dtype_of(backend, dtype))
    key = fnn.random.key(0, backend=backend)
    with wide(), np.errstate(all="ignore"):
        params = [row.layer.init(key, (1,), z.dtype) for row in ROWS]
        results = compiled(backend, of_all)(z if backend == "numpy" else jax.numpy.asarray(z), params)
        for row, arrays in zip(ROWS, results, strict=True):
            assert all(array.dtype == z.dtype for array in arrays), row.layer
        return z[:, 0].astype(float), [[np.asarray(a).astype(float)[:, 0] for a in arrays] for arrays in results]


@EACH
@pytest.mark.thorough(backend="jax")
def test_activations_and_their_derivatives_have_the_digits_that_the_dtype_can_hold(backend, dtype):
    z, results = found(backend, dtype)
    for row, (a, dz, *partials) in zip(ROWS, results, strict=True):
        for i, x in enumerate(z[:-3]):
            x, place = F(x), (repr(row.layer), x)
            slack = 4 + float(row.argument(x))
            check((*place, "a"), a[i], row.function(x), dtype, slack, size=abs(x))
            check((*place, "dz"), dz[i], row.slope(x), dtype, slack, row.absolute(x), size=abs(x))
            for partial, wanted in zip(partials, row.partials, strict=True):
                size = max(1, x * x)  # which is a factor of some
                check((*place, "partial"), partial[i], wanted(x), dtype, slack, row.absolute(x) * size, size=size)


@EACH
def test_nan_gives_nan_and_infinities_give_a_limit_or_nan(backend, dtype):
    _, results = found(backend, dtype)
    far, large = F(10) ** 60, limits(dtype)[2]
    for row, (a, dz, *_) in zip(ROWS, results, strict=True):
        constant = isinstance(row.layer, fnn.BinaryStep | fnn.Sign | fnn.Identity)
        assert np.isnan(a[-3]), row.layer
        assert np.isnan(dz[-3]) != constant, row.layer
        for i, x in ((-2, -far), (-1, far)):
            for name, value, wanted in (("a", a[i], row.function(x)), ("dz", dz[i], row.slope(x))):
                if np.isnan(value) or mp.isnan(wanted):
                    assert np.isnan(value), (row.layer, name)
                elif abs(wanted) > 100:
                    assert value == np.inf * int(mp.sign(wanted)) or abs(value) == large, (row.layer, name, value)
                else:
                    assert abs(value - float(wanted)) < 0.01, (row.layer, name, value)


LEVEL = {  # f(∓∞) and f'(∓∞)
    fnn.Softsign(): ((-1, 1), (0, 0)),
    fnn.Isrlu(4.0): ((-0.5, np.inf), (0, 1)),
    fnn.Squareplus(): ((0, np.inf), (0, 1)),
    fnn.ArcTan(): ((-np.pi / 2, np.pi / 2), (0, 0)),
    fnn.Gelu(): ((np.nan, np.inf), (0, 1)),  # −∞ · 0 is NaN
}


def both(layer, z):
    a, residuals = layer.forward((), z)
    return a, layer.backward((), residuals, np.ones_like(z))


@pytest.mark.parametrize("layer", LEVEL, ids=repr)
def test_far_out_nothing_overflows_and_at_infinity_the_limit_is_the_value(layer):
    with np.errstate(over="raise"):
        both(layer, np.float32([[-3e30, 3e30]]))
    with np.errstate(all="ignore"):
        found = both(layer, np.array([[-np.inf, np.inf]]))
    np.testing.assert_allclose(np.concatenate(found), LEVEL[layer], atol=1e-300)


def test_a_steep_soft_exponential_levels_off_where_its_argument_overflows():
    layer = fnn.SoftExponential(2.0)
    params = layer.init(fnn.random.key(0, backend="numpy"), (1,), np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(layer.apply(params, np.array([[-1.5e308]])), 1.5)  # 2 − ½


# ---- activations of several entries together -------------------------------------------------------------------------

LOGITS = [(0, 0, 0, 0), (1, 2, 3, 4), (-88, 0, 88, 5), (18, 0, -18, -81), (1e4, -6e4, 0, 1), (3, -np.inf, 1, 2)]
ERROR = (1.0, -0.5, 0.25, 2.0)


@EACH
def test_rows_have_the_digits_that_the_dtype_can_hold(backend, dtype):
    """z − max z is rounded before the exponential; dz is a difference of products with δ, and as exact as they are."""
    dtype_ = dtype_of(backend, dtype)
    z, da = np.array(LOGITS).astype(dtype_), np.array([ERROR] * len(LOGITS)).astype(dtype_)
    layers = fnn.Softmax(), fnn.LogSoftmax(), fnn.Glu()

    def both(z, da):
        found = []
        for layer in layers:
            a, residuals = layer.forward((), z)
            found.append((a, layer.backward((), residuals, da[:, : a.shape[1]])))
        return found

    with wide(), np.errstate(all="ignore"):
        results = compiled(backend, both)(*((z, da) if backend == "numpy" else map(jax.numpy.asarray, (z, da))))
    (p, dp), (logs, dlogs), (a, dz) = [[np.asarray(x).astype(float) for x in pair] for pair in results]
    for n, row in enumerate(z.astype(float)):
        row, d = [F(x) for x in row], [F(x) for x in ERROR]
        shifted = [x - max(row) for x in row]
        total = sum(exp(x) for x in shifted)
        wanted = [exp(x) / total for x in shifted]
        mean = sum(x * y for x, y in zip(wanted, d, strict=True))
        for i, x in enumerate(shifted):
            place, far = (LOGITS[n], i), float(min(-x, 999))
            check((*place, "p"), p[n, i], wanted[i], dtype, 8 + far)
            check((*place, "dp"), dp[n, i], wanted[i] * (d[i] - mean), dtype, absolute=(8 + far) * 4 * wanted[i])
            if mp.isfinite(x):
                check((*place, "log p"), logs[n, i], x - log(total), dtype, absolute=8)
            check((*place, "dlog p"), dlogs[n, i], d[i] - wanted[i] * sum(d), dtype, absolute=8 * sum(map(abs, d)))
        for i, (u, v) in enumerate(zip(row[:2], row[2:], strict=True)):
            if mp.isfinite(u):
                check((LOGITS[n], i, "u s"), a[n, i], u * sigma(v), dtype, size=abs(u))
                check((LOGITS[n], i, "du"), dz[n, i], d[i] * sigma(v), dtype)
                check((LOGITS[n], i, "dv"), dz[n, i + 2], d[i] * u * bell(v), dtype, absolute=8 * abs(u), size=abs(u))


# ---- costs -----------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """A cost, ℓ and δ of one output, predictions, targets, and what each of both may be off by in ε."""

    loss: Loss
    value: Callable
    delta: Callable
    predictions: list
    targets: list
    absolute: Callable = lambda a, y: (0, 0)


def huber(r):
    t = F(0.75)
    return r * r / 2 if abs(r) <= t else t * (abs(r) - t / 2)


def times(y, x):
    """y x, and 0 where y is."""
    return y * x if y else F(0)


def surprise(y, a):
    """y log(y/a)."""
    return y * log(y / a) if y else F(0)


def ratio(a, y):
    return y / a - log(y / a) - 1


def focal(m):
    """q² s, and its derivative."""
    return sigma(-m) ** 2 * plus(-m), -(sigma(-m) ** 2) * (sigma(-m) + 2 * sigma(m) * plus(-m))


def rounded(m):
    """A power of q is e^(−2m), with an argument that is rounded."""
    return 8 * min(abs(m), 999) * abs(focal(m)[0]), 8 * min(abs(m), 999) * abs(focal(m)[1])


REAL, TARGETS = [-1e15, -3e3, -4, -1, -0.1, -1e-7, 0, 1e-7, 0.3, 1, 4, 30, 3e3, 1e15], [-2.5, 0, 1, 30]
CHANCES, SHARES = [1e-11, 1e-7, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 2.0**-20, 1], [0, 0.25, 1]
LOGIT = [-3e38, -1e4, -110, -88, -40, -18, -5, -1, -0.1, -1e-7, 0, 1e-7, 0.1, 1, 5, 18, 40, 88, 110, 1e4, 3e38]
COSTS = [
    Cost(fnn.Quadratic(), lambda a, y: (a - y) ** 2 / 2, lambda a, y: a - y, REAL, TARGETS),
    Cost(fnn.MeanSquaredError(), lambda a, y: (a - y) ** 2, lambda a, y: 2 * (a - y), REAL, TARGETS),
    Cost(fnn.RootMeanSquaredError(), lambda a, y: (a - y) ** 2, lambda a, y: 2 * (a - y), REAL, TARGETS),
    Cost(fnn.MeanAbsoluteError(), lambda a, y: abs(a - y), lambda a, y: mp.sign(a - y), REAL, TARGETS),
    Cost(
        fnn.Huber(0.75),
        lambda a, y: huber(a - y),
        lambda a, y: min(max(a - y, F(-0.75)), F(0.75)),
        REAL,
        TARGETS,
    ),
    Cost(  # the square is rounded before the exponential
        fnn.ExponentialCost(2.0),
        lambda a, y: 2 * exp((a - y) ** 2 / 2),
        lambda a, y: 2 * (a - y) * exp((a - y) ** 2 / 2),
        [x for x in REAL if abs(x) < 5],
        TARGETS,
        lambda a, y: (4 * abs(a - y) ** 2 * exp((a - y) ** 2 / 2), 4 * abs(a - y) ** 3 * exp((a - y) ** 2 / 2)),
    ),
    Cost(
        fnn.Quantile(0.3),
        lambda a, y: max(F(0.7) * (a - y), F(0.3) * (y - a)),
        lambda a, y: F(0.7) * (a > y) - F(0.3) * (a < y),
        REAL,
        TARGETS,
    ),
    Cost(fnn.CrossEntropy(), lambda a, y: -y * log(a), lambda a, y: -y / a, CHANCES, SHARES),
    Cost(  # 1 − a has the digits of a
        fnn.BinaryCrossEntropy(),
        lambda a, y: -y * log(a) - (1 - y) * log(1 - a),
        lambda a, y: (a - y) / (a * (1 - a)),
        [0.1, 0.3, 0.5, 0.75, 0.9],
        SHARES,
        lambda a, y: (4, 8 / (a * (1 - a))),
    ),
    Cost(  # differences of logarithms
        fnn.KullbackLeibler(),
        lambda a, y: surprise(y, a),
        lambda a, y: -y / a,
        CHANCES,
        SHARES,
        lambda a, y: (times(y, abs(log(a)) + 4), 0),
    ),
    Cost(
        fnn.GeneralizedKullbackLeibler(),
        lambda a, y: surprise(y, a) - y + a,
        lambda a, y: (a - y) / a,
        CHANCES,
        SHARES,
        lambda a, y: (times(y, abs(log(a)) + 4) + 4 * a, 0),
    ),
    Cost(  # differences of roots
        fnn.Hellinger(),
        lambda a, y: (mp.sqrt(a) - mp.sqrt(y)) ** 2 / mp.sqrt(2),
        lambda a, y: (1 - mp.sqrt(y / a)) / mp.sqrt(2),
        CHANCES,
        SHARES,
        lambda a, y: (8 * abs(mp.sqrt(a) - mp.sqrt(y)), 4),
    ),
    Cost(
        fnn.ItakuraSaito(),
        ratio,
        lambda a, y: (a - y) / a**2,
        CHANCES,
        SHARES[1:],
        lambda a, y: (8 + 4 * y / a, 0),
    ),
    Cost(
        fnn.SigmoidBinaryCrossEntropy(),
        lambda z, y: times(1 - y, plus(z)) + times(y, plus(-z)),
        lambda z, y: sigma(z) - y,
        LOGIT,
        SHARES,
        lambda z, y: (0, 4),
    ),
    Cost(
        fnn.SigmoidBinaryCrossEntropy(pos_weight=3.0),
        lambda z, y: times(1 - y, plus(z)) + 3 * times(y, plus(-z)),
        lambda z, y: (1 - y) * sigma(z) - 3 * y * sigma(-z),
        LOGIT,
        SHARES,
        lambda z, y: (0, 8),
    ),
    Cost(
        fnn.BinaryFocal(),
        lambda z, y: focal(z if y else -z)[0],
        lambda z, y: focal(z)[1] if y else -focal(-z)[1],
        LOGIT,
        [0, 1],
        lambda z, y: rounded(z if y else -z),
    ),
    Cost(
        fnn.PoissonNll(),
        lambda z, y: exp(z) - times(y, z),
        lambda z, y: exp(z) - y,
        [z for z in LOGIT if z < 100],
        [0, 1, 7],
        lambda z, y: (4 * exp(z) + 4 * abs(y * z), 4 * exp(z) + 4 * y),
    ),
    Cost(fnn.Hinge(), lambda z, y: max(0, 1 - y * z), lambda z, y: -y * (y * z < 1), LOGIT, [-1, 1]),
    Cost(fnn.Perceptron(), lambda z, y: max(0, -y * z), lambda z, y: -y * (y * z <= 0), LOGIT, [-1, 1]),
]
WIDE = [(backend, dtype) for backend, dtype in DTYPES if dtype in ("float32", "float64")]
IN_WIDE = pytest.mark.parametrize(("backend", "dtype"), WIDE, ids=map("-".join, WIDE))


def of_costs(pairs):
    """Of every cost, ℓ and δ together, and ℓ alone."""
    costs = zip(COSTS, pairs, strict=True)
    return [(*cost.loss.value_and_delta(a, y), cost.loss.value(a, y)) for cost, (a, y) in costs]


@IN_WIDE
def test_costs_and_their_derivatives_have_the_digits_that_the_dtype_can_hold(backend, dtype):
    pairs = [np.array([(a, y) for a in cost.predictions for y in cost.targets]).astype(dtype) for cost in COSTS]
    with wide(), np.errstate(over="ignore"):
        results = compiled(backend, of_costs)(on(backend, [(pair[:, :1], pair[:, 1:]) for pair in pairs]))
    for cost, pair, (value, delta, alone) in zip(COSTS, pairs, results, strict=True):
        for i, (a, y) in enumerate(pair.astype(float)):
            exact, place = (F(a), F(y)), (cost.loss, a, y)
            slack, size = cost.absolute(*exact), getattr(cost.loss, "pos_weight", None) or 1
            check((*place, "ℓ"), float(value[i]), cost.value(*exact), dtype, absolute=slack[0], size=size)
            check((*place, "alone"), float(alone[i]), cost.value(*exact), dtype, absolute=slack[0], size=size)
            check((*place, "δ"), float(delta[i, 0]), F(cost.delta(*exact)), dtype, absolute=slack[1], size=size)


@IN_WIDE
def test_cross_entropy_of_logits_has_the_digits_that_the_dtype_can_hold(backend, dtype):
    """ℓ is a difference of logits, which are rounded, and a logarithm; δ one of a probability and 1."""
    xp = np if backend == "numpy" else jax.numpy
    rows = [row for row in LOGITS if np.isfinite(row).all()]
    with wide():
        for label in range(4):
            z, y = np.array(rows, dtype), np.full(len(rows), label)
            value, delta = fnn.SoftmaxCrossEntropy().value_and_delta(xp.asarray(z), xp.asarray(y))
            for n, row in enumerate(rows):
                shifted = [F(x) - max(row) for x in row]
                total = sum(exp(x) for x in shifted)
                check((row, label), float(value[n]), log(total) - shifted[label], dtype, absolute=4)
                for i, x in enumerate(shifted):
                    wanted = exp(x) / total - (i == label)
                    check((row, label, i), float(delta[n, i]), wanted, dtype, 8 + float(min(-x, 999)), absolute=4)


@IN_WIDE
def test_focal_cost_of_logits_has_the_digits_that_the_dtype_can_hold(backend, dtype):
    rows = [row for row in LOGITS if max(map(abs, row)) < 1e4][:: 1 if THOROUGH else 4]
    with wide():
        for label in range(4):
            z, y = on(backend, (np.array(rows, dtype), np.full(len(rows), label)))
            value, delta = fnn.Focal().value_and_delta(z, y)
            for n, row in enumerate(rows):
                others = [F(x) for i, x in enumerate(row) if i != label]
                total = sum(exp(x - max(others)) for x in others)
                exact, slope = focal(m := F(row[label]) - max(others) - log(total))
                slack = 16 + 8 * float(max(map(abs, (m, *row))))
                check((row, label), float(value[n]), exact, dtype, slack, size=slack)
                for i, x in enumerate(row):
                    wanted = slope if i == label else -slope * exp(F(x) - max(others)) / total
                    check((row, label, i), float(delta[n, i]), wanted, dtype, slack, size=slack)


@IN_WIDE
def test_gaussian_cost_has_the_digits_that_the_dtype_can_hold(backend, dtype):
    grid = [(m, s, y) for m in (-3e3, -0.1, 0, 0.3, 4) for s in (-60, -4, -1e-7, 0, 1, 40) for y in TARGETS]
    points = np.array(grid, dtype)
    with wide():
        value, delta = fnn.GaussianNll().value_and_delta(*on(backend, (points[:, :2], points[:, 2:])))
    for n, (m, s, y) in enumerate(points.astype(float)):
        r, e = F(m) - F(y), exp(-F(s))
        check((m, s, y), float(value[n]), (F(s) + r * r * e) / 2, dtype, 8, abs(s) + r * r * e)
        check((m, s, y, "μ"), float(delta[n, 0]), r * e, dtype, 8)
        check((m, s, y, "s"), float(delta[n, 1]), (1 - r * r * e) / 2, dtype, 8, 1 + r * r * e)


def test_of_a_narrow_prediction_a_cost_and_its_delta_are_computed_in_float32(backend):
    dtype = np.dtype(np.float16) if backend == "numpy" else dtype_of("jax", "bfloat16")
    a = np.array([[0.25], [0.5], [0.75]], np.float32)  # which every dtype holds
    targets = [np.full_like(a, cost.targets[1]) for cost in COSTS]

    def of_each(a, targets):
        return [backpropagation.cost(cost.loss, a, y)[:2] for cost, y in zip(COSTS, targets, strict=True)]

    results = compiled(backend, of_each)(on(backend, a.astype(dtype)), on(backend, targets))
    for cost, y, (losses, delta) in zip(COSTS, targets, results, strict=True):
        value, exact = cost.loss.value_and_delta(a, y)
        assert losses.dtype == delta.dtype == np.float32, cost.loss
        np.testing.assert_allclose(losses, value, rtol=1e-5, err_msg=repr(cost.loss))
        np.testing.assert_allclose(delta, exact, rtol=1e-5, err_msg=repr(cost.loss))


OF_TESTS = {fnn.SoftmaxCrossEntropy, fnn.Focal, fnn.GaussianNll, fnn.FunctionLoss}  # of tests of their own


def test_every_activation_and_every_cost_stands_in_the_tables():
    ours = lambda base: {
        c for name, c in registered(base).items() if name.startswith("fnn.") and not c.__subclasses__()
    }
    assert {type(row.layer) for row in ROWS} | OF_ROWS >= ours(Activation)
    assert {type(cost.loss) for cost in COSTS} | OF_TESTS >= ours(Loss)
