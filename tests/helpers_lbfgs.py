"""Line searches and quasi-Newton steps, checked: each check is a test and finds planted faults."""

import numpy as np
import oracle

import fnn
from fnn import trees
from fnn.optimizers import line_search, quasi_newton
from fnn.optimizers.line_search import Point


def along(phi):
    """A function of one number, and its derivative, as one of a vector (1,)."""

    def f(x):
        with np.errstate(all="ignore"):
            value, slope = phi(x[0])
        return np.float64(value), np.array([slope])

    return f


def searched(phi, a):
    """The point that a search accepts along d = 1 from 0, that at 0, and the number of evaluations."""
    f, x = along(phi), np.zeros(1)
    value, grad = f(x)
    start = Point(np.float64(0), value, grad[0], grad)
    with np.errstate(all="ignore"):
        point, evaluations = line_search.search(f, x, start, np.ones(1), np.float64(a))
    return point, start, evaluations


def rational(a):
    """Moré and Thuente's function (5.1)."""
    return -a / (a**2 + 2), (a**2 - 2) / (a**2 + 2) ** 2


def quintic(a):
    """Moré and Thuente's function (5.2)."""
    b = a + 0.004
    return b**5 - 2 * b**4, 5 * b**4 - 8 * b**3


def wavy(a):
    """Moré and Thuente's function (5.3), whose derivative has many signs."""
    k = 39 * np.pi / 2
    near = abs(a - 1) <= 0.01
    bowl = (a - 1) ** 2 / 0.02 + 0.005
    base, slope = (bowl, (a - 1) / 0.01) if near else (abs(a - 1), np.sign(a - 1))
    return base + 2 * 0.99 / (39 * np.pi) * np.sin(k * a), slope + 0.99 * np.cos(k * a)


def steep(a):
    """A barrier: the cost is infinite from 0.01 on."""
    return (-np.log(0.01 - a) - 150 * a, 1 / (0.01 - a) - 150) if a < 0.01 else (np.inf, np.nan)


def broken(a):
    """NaN from 10⁻⁵ on."""
    return (-a, -1.0 + a) if a < 1e-5 else (np.nan, np.nan)


def endless(a):
    """−∞ from 5 on, where it must not go."""
    return (-a - a**2, -1.0 - 2 * a) if a < 5 else (-np.inf, -np.inf)


SEARCHES = {"rational": rational, "quintic": quintic, "wavy": wavy, "barrier": steep}


def strong_wolfe():
    """Accepted steps satisfy both conditions, from short and from long first steps, and are found soon."""
    for name, phi in SEARCHES.items():
        for a in (1e-3, 0.1, 1.0, 10.0, 1e3):
            point, start, evaluations = searched(phi, a)
            assert point.a > 0, (name, a)
            assert evaluations <= 20, (name, a, evaluations)
            np.testing.assert_array_equal([point.value, point.slope], phi(point.a))
            assert point.value <= start.value + 1e-4 * point.a * start.slope, (name, a)
            assert abs(point.slope) <= 0.9 * abs(start.slope), (name, a)


def not_finite():
    """A step is shortened until cost and slope are finite, and is 0 where no such step falls."""
    for phi, limit in ((broken, 1e-5), (endless, 5)):
        for a in (1e-6, 1.0, 100.0):
            point, _, _ = searched(phi, a)
            assert 0 < point.a < limit, (phi.__name__, a)
            assert np.isfinite([point.value, point.slope]).all()
    point, _, evaluations = searched(lambda a: (a, -1.0), 1.0)  # a derivative of the wrong sign
    assert point.a == 0, point
    assert evaluations == line_search.EVALUATIONS, evaluations
    for slope in (0.0, 1.0, np.nan, -np.inf):
        assert searched(lambda a, slope=slope: (0.0, slope), 1.0)[2] == 0, "no trial where the cost does not fall"


def within_rounding():
    """Where values are equal to rounding, slopes decide: of 1 + ½ c (a − 1)², far below 10⁻¹⁶ of 1."""
    for c in (1e-17, 1e-20):
        for noise in (0.0, 1e-15, -1e-15):
            phi = lambda a, c=c, noise=noise: (1 + noise * (a != 0), c * (a - 1))
            for a in (0.01, 1.0, 1.99, 50.0):
                point, start, _ = searched(phi, a)
                assert point.a > 0, (c, noise, a)
                assert abs(point.slope) <= 0.9 * abs(start.slope), (c, noise, a)
    point, _, _ = searched(lambda a: (1 + 1e-6 * (a != 0), 1e-17 * (a - 1)), 1.0)
    assert point.a == 0, "values that rise by more are not equal"
    a = searched(lambda a: (1.0, 1e-17 * (max(a, 3) - 4)), 1.0)[0].a
    assert a > 1, "a step that is too short is not accepted for its value alone"


def dense_inverse(s, y):
    """H of BFGS for pairs, the oldest first, as a matrix."""
    h = np.eye(s.shape[1]) * (s[-1] @ y[-1]) / (y[-1] @ y[-1])
    for a, b in zip(s, y, strict=True):
        v = np.eye(len(a)) - np.outer(b, a) / (a @ b)
        h = v.T @ h @ v + np.outer(a, a) / (a @ b)
    return h


def two_loops(g, s, y):
    """Algorithm 7.4 as the book has it."""
    q, alphas = g, []
    for a, b in zip(s[::-1], y[::-1], strict=True):
        alphas.append(a @ q / (a @ b))
        q = q - alphas[-1] * b
    r = q * (s[-1] @ y[-1]) / (y[-1] @ y[-1])
    for a, b, alpha in zip(s, y, alphas[::-1], strict=True):
        r = r + a * (alpha - b @ r / (a @ b))
    return r


def pairs(n=7, m=4, seed=0):
    """Steps, and changes of the gradient of a convex quadratic, which are perturbed."""
    rng = np.random.default_rng(seed)
    root, s = rng.normal(size=(n, n)), rng.normal(size=(m, n))
    return s, s @ (root @ root.T + np.eye(n)) + 0.01 * rng.normal(size=(m, n)), rng.normal(size=n)


def upper_inverse(s, y):
    """R⁻¹ of the pairs that are there, and zeros elsewhere."""
    there = [i for i in range(len(s)) if s[i].any()]
    inverse = np.zeros((len(s), len(s)))
    inverse[np.ix_(there, there)] = np.linalg.inv(np.triu(s[there] @ y[there].T)) if there else 0
    return inverse


def recursion():
    """H g is the two loops', and that of the dense matrix, with pairs missing too, in whatever rows; H y = s."""
    s, y, g = pairs()
    for known in range(1, 5):
        empty = np.zeros((4 - known, 7))
        padded = [np.concatenate([empty, rows[-known:]]) for rows in (s, y)]
        padded.append(upper_inverse(*padded))
        product = quasi_newton.inverse_product(g, *padded, 3)
        np.testing.assert_allclose(product, two_loops(g, s[-known:], y[-known:]), rtol=1e-11)
        np.testing.assert_allclose(product, dense_inverse(s[-known:], y[-known:]) @ g, rtol=1e-11)
        np.testing.assert_allclose(quasi_newton.inverse_product(y[-1], *padded, 3), s[-1], rtol=1e-11)
        for turns in (1, 3):
            turned = *(np.roll(rows, turns, 0) for rows in padded[:2]), np.roll(padded[2], (turns, turns), (0, 1))
            again = quasi_newton.inverse_product(g, *turned, (3 + turns) % 4)
            np.testing.assert_allclose(again, product, rtol=1e-11)
    np.testing.assert_array_equal(quasi_newton.inverse_product(g, 0 * s, 0 * y, np.zeros((4, 4)), 3), g)


def in_turn(s, y, inverse, newest):
    """The pairs from the oldest to the newest, and R⁻¹."""
    order = (newest + 1 + np.arange(len(s))) % len(s)
    return s[order], y[order], inverse[np.ix_(order, order)]


def remembering():
    """A new pair takes the place of the oldest, and one without curvature is left out; R⁻¹ is theirs."""
    s, y, g = pairs()
    known = lambda: (s.copy(), y.copy(), upper_inverse(s, y), 3)
    new = in_turn(*quasi_newton.remembered(*known(), g, 2 * g))
    np.testing.assert_array_equal(new[0], [*s[1:], g])
    np.testing.assert_array_equal(new[1], [*y[1:], 2 * g])
    np.testing.assert_allclose(new[2], upper_inverse(*new[:2]), rtol=1e-10)
    for change in (-g, 0 * g, np.array([-g[1], g[0], 0, 0, 0, 0, 0])):
        for kept, before in zip(quasi_newton.remembered(*known(), g, change), known(), strict=True):
            np.testing.assert_array_equal(kept, before)
    none = quasi_newton.forgotten(*known(), g, g)
    assert not any(map(np.any, none[:3]))
    for m in (1, 2, 4):
        few = (*(rows[:m] for rows in (0 * s, 0 * y, np.zeros((m, m)))), 0)
        for a, b in zip(s[:3], y[:3], strict=True):
            few = quasi_newton.remembered(*few, a, b)
        few = in_turn(*few)
        np.testing.assert_array_equal(few[0][-min(m, 3) :], s[:3][-m:])
        np.testing.assert_allclose(few[2], upper_inverse(*few[:2]), rtol=1e-10)


def vectors():
    """All parameters as one vector, there and back, in their order and dtypes; those of `Fixed` stay out."""
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(2, 3)), rng.normal(size=2).astype(np.float32)
    params = (fnn.DenseParams(w, b), (), trees.Fixed(np.ones(4)), {"a": np.float64(5)})
    x = quasi_newton.flat(params)
    np.testing.assert_array_equal(x, [*w.ravel(), *b, 5])
    back = quasi_newton.nested(2 * x, params)
    oracle.assert_close(back, (fnn.DenseParams(2 * w, 2 * b), (), trees.Fixed(np.ones(4)), {"a": np.float64(10)}), 0)
    assert back[0].b.dtype == np.float32
    assert quasi_newton.flat(((), trees.Fixed(w))).shape == (0,)


def rosenbrock(x):
    """Rosenbrock's function of N variables, and its gradient."""
    low, high = x[:-1], x[1:]
    bend = high - low**2
    grad = 0 * x
    grad[:-1] += -400 * low * bend - 2 * (1 - low)
    grad[1:] += 200 * bend
    return (100 * bend**2 + (1 - low) ** 2).sum(), grad


TIGHT = {"iterations": 2000, "gtol": 1e-11, "ftol": 0.0}


def minimum_of_rosenbrock():
    """(1, 1), from the start that is usual."""
    x, history = fnn.minimize(rosenbrock, np.array([-1.2, 1.0]), fnn.Lbfgs(**TIGHT))
    assert history["status"][0] == quasi_newton.GRADIENT, history
    np.testing.assert_allclose(x, 1, atol=1e-9)
    assert history["loss_after"][0] < 1e-16, history
    assert history["evaluations"][0] < 100, history


def tolerances():
    """What ends a step, and that it is told: the gradient, the decrease, the iterations, or nothing lower."""
    end = lambda f=rosenbrock, x=(-1.2, 1.0), **options: fnn.minimize(f, np.array(x), fnn.Lbfgs(**options))
    x, history = end(iterations=100, gtol=1e-3, ftol=0.0)
    gradient = abs(rosenbrock(x)[1]).max()
    assert history["status"][0] == 1, history
    assert gradient <= 1e-3, gradient
    np.testing.assert_allclose(history["gradient_norm"][0], gradient, rtol=1e-6)
    _, history = end(iterations=7)
    assert (history["status"][0], history["iterations"][0]) == (0, 7), history
    _, earlier = end(iterations=500, gtol=0.0, ftol=1e-2)
    assert earlier["status"][0] == 2, earlier
    assert earlier["iterations"][0] < history["iterations"][0] * 9, earlier
    one_less = end(iterations=int(earlier["iterations"][0]) - 1, gtol=0.0, ftol=0.0)[1]
    assert abs(one_less["loss_after"] - earlier["loss_after"])[0] < 1e-2, "the decrease is that of an iteration"
    _, history = end(lambda x: (0.5 * x @ x, x), (0.5, 0.1), ftol=1e9)
    assert history["status"][0] == 1, "the gradient is the first of two reasons"
    x, history = end(lambda x: (abs(x).sum(), np.sign(x) + (x == 0)), (0.0, 0.0))  # a kink, at its minimum
    assert (history["status"][0], *x) == (3, 0, 0), history
    x, history = end(x=(1.0, 1.0))
    assert (history["status"][0], history["iterations"][0], *x) == (1, 0, 1, 1), history


def never_nan():
    """Where a trial is NaN it is shortened; where the first value is, the parameters stay."""
    x, history = fnn.minimize(lambda x: ((x - np.log(x)).sum(), 1 - 1 / x), np.array([1e-3, 30.0]), fnn.Lbfgs(**TIGHT))
    np.testing.assert_allclose(x, 1, atol=1e-9)
    for value in (np.nan, np.inf):
        x, history = fnn.minimize(lambda x, value=value: (value, x * np.nan), np.ones(2), fnn.Lbfgs())
        assert (history["status"][0], history["evaluations"][0], *x) == (3, 0, 1, 1), history
