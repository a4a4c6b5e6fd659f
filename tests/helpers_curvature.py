"""What the tests of fnn.curvature share: problems, and their curvature matrices by dense Jacobian algebra."""

import functools
from typing import Any, NamedTuple

import numpy as np
import oracle
from helpers import moved, on, wide
from test_per_example import NETS, SHAPES

import fnn
from fnn import curvature, trees
from fnn.complex_step import jvp
from fnn.curvature.spectrum import like

CASES = {name: (net, SHAPES.get(name, (5,)), fnn.SoftmaxCrossEntropy()) for name, net in NETS.items()}
CASES |= {
    "tags": (fnn.Serial((fnn.Embedding(5, 3), fnn.Rnn(3, all_states=True), fnn.Dense(3))), (4,), CASES["mlp"][2]),
    "ignored tags": (fnn.mlp((3, 3), fnn.Tanh()), (4, 2), fnn.SoftmaxCrossEntropy(ignored=-1)),
    "pixels": (fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Tanh(), fnn.Conv(1, (2, 2)))), (3, 4, 1), fnn.Huber(0.4)),
    "smoothed": (fnn.mlp((4, 3), fnn.Tanh()), (3,), fnn.SoftmaxCrossEntropy(label_smoothing=0.2)),
    "bits": (fnn.mlp((4, 2), fnn.Elu()), (3,), fnn.SigmoidBinaryCrossEntropy()),
    "counts": (fnn.mlp((4, 2), fnn.Softplus()), (3,), fnn.PoissonNll()),
    "probabilities": (fnn.Serial((fnn.mlp((4, 3), fnn.Tanh()), fnn.Softmax())), (3,), fnn.CrossEntropy()),
    "exponential": (fnn.mlp((4, 2), fnn.Gelu()), (3,), fnn.ExponentialCost(3.0)),
}
del CASES["nothing to learn"]
NO_TANGENT = [name for name in CASES if name.startswith("own") or name.endswith(" positions")]  # on NumPy
N = 5


class Problem(NamedTuple):
    """A network, a cost, parameters, and examples with weights, one of them 0; all in float64 on NumPy."""

    net: Any
    loss: Any
    params: Any
    x: Any
    y: Any
    weights: Any


def problem(name, n=N) -> Problem:
    """The problem of that name."""
    (net, input_shape, loss), rng = CASES[name], np.random.default_rng(0)
    symbols = name in ("symbols", "tags")
    x = rng.integers(0, 5, (n, *input_shape)) if symbols else rng.normal(size=(n, *input_shape))
    shape = (n, *net.output_shape(input_shape))
    if isinstance(loss, fnn.SoftmaxCrossEntropy | fnn.CrossEntropy):
        y = rng.integers(0, shape[-1], shape[:-1])
        y = np.where(rng.random(y.shape) < 0.3, -1, y) if loss.ignored is not None else y
    elif isinstance(loss, fnn.PoissonNll | fnn.SigmoidBinaryCrossEntropy):
        y = rng.integers(0, 2, shape)
    else:
        y = rng.normal(size=shape)
    weights = rng.integers(1, 4, n).astype(np.float64)
    weights[1] = 0
    return Problem(net, loss, moved(net, input_shape), x, y, weights)


def direction(params, seed=1):
    """Numbers nested as the parameters."""
    rng = np.random.default_rng(seed)
    return trees.map(lambda p: rng.normal(size=p.shape), params)


def on_jax(names, f, n=N):
    """`{name: f(problem, direction)}` on JAX in float64, all of them one program."""
    problems = {name: problem(name, n) for name in names}

    def run(arrays):
        return {
            name: f(problems[name]._replace(**dict(zip(problems[name]._fields[2:], of_net, strict=True))), v)
            for name, (of_net, v) in arrays.items()
        }

    with wide():
        arrays = {name: (tuple(p[2:]), direction(p.params)) for name, p in problems.items()}
        return on("numpy", oracle.quick_jit(run)(on("jax", arrays)))


# ---- dense algebra ---------------------------------------------------------------------------------------------------


class Dense(NamedTuple):
    """J (N, K, P), ∂²ℓ/∂prediction² (N, K, K) and δ (N, K), with the outputs of all positions as one axis."""

    jacobian: Any
    hessian: Any
    delta: Any


def dense(p: Problem) -> Dense:
    """All of it by complex steps, of the forward pass and of δ, one parameter and one output at a time."""
    prediction = p.net.forward(p.params, p.x)[0]
    n, size = len(prediction), prediction[0].size
    columns = [jvp(lambda q: p.net.forward(q, p.x)[0], p.params, v).reshape(n, size) for v in directions(p.params)]
    bent = []
    for k in range(size):
        u = np.zeros((n, size))
        u[:, k] = 1
        bent.append(jvp(lambda a: p.loss.delta(a, p.y), prediction, u.reshape(prediction.shape)).reshape(n, size))
    delta = p.loss.delta(prediction, p.y).reshape(n, size)
    return Dense(np.stack(columns, axis=-1), np.stack(bent, axis=-1), delta)


@functools.cache
def dense_of(name):
    """`dense` of the problem of that name."""
    return dense(problem(name))


def directions(params):
    """For each parameter the direction that moves it alone; what is frozen does not move."""
    for i in range(sum(leaf.size for leaf in trees.leaves(params))):
        numbers = iter(range(10**9))
        yield trees.map_learnt(
            lambda p: np.array([float(next(numbers) == i) for _ in range(p.size)]).reshape(p.shape),  # noqa: B023
            params,
            fixed=lambda p: np.array([0.0 * next(numbers) for _ in range(p.size)]).reshape(p.shape),  # noqa: B023
        )


def shares(weights, denominator=None):
    return weights / (weights.sum() if denominator is None else denominator)


def ggn(d: Dense, s):
    """Σ s Jᵀ H J."""
    return np.einsum("n,nkp,nkl,nlq->pq", s, d.jacobian, d.hessian, d.jacobian)


def empirical(d: Dense, s):
    """Σ s g gᵀ."""
    g = np.einsum("nkp,nk->np", d.jacobian, d.delta)
    return np.einsum("n,np,nq->pq", s, g, g)


def flat(tree):
    return np.concatenate([np.zeros(0), *(np.asarray(leaf).ravel() for leaf in trees.leaves(tree))])


# ---- dividing by it --------------------------------------------------------------------------------------------------


def matrix_of(own, params, batch, of=ggn):
    """A dense curvature matrix of the batch that a rule is given."""
    return of(dense(Problem(own.net, own.loss, params, batch.x, batch.y, batch.weights)), shares(batch.weights))


def by_layers(params, matrix, g):
    """M⁺ g with what M says of two different layers left out; a weight and its bias are of one layer."""
    of = np.concatenate([np.full(p.size, hash(place.rsplit(".", 1)[0])) for place, p in trees.paths(params)])
    return like(params, np.linalg.pinv(matrix * (of[:, None] == of), rcond=1e-12, hermitian=True) @ flat(g))


def divided(params, blocks, g, damping):
    """Each block of g divided by the dense matrix of the damped block, with the damping split a second time."""

    def solve(block, v):
        a, b = block
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(b) / len(b)))
        damped = np.kron(b + damping**0.5 / pi * np.eye(len(b)), a + damping**0.5 * pi * np.eye(len(a)))
        return np.linalg.solve(damped, v.ravel()).reshape(v.shape)

    pairs = curvature.block_matrices(params, blocks, g)
    return curvature.from_matrices(params, blocks, [solve(*pair) for pair in pairs])
