"""The tests are tested: wrong derivatives, planted one by one, and the check of the suite that has to find each.

    python tests/faults.py          prints the table of faults, and fails if one survives

A fault is a piece of the source of a function, and what stands there instead. Every check passes without it.
"""

import contextlib
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import test_activations
import test_losses

import fnn
from fnn import activations, losses
from fnn.testing import check_gradients, check_layer, check_loss


class Fault(NamedTuple):
    what: str
    where: Callable  # the class or the module
    name: str  # of its function
    old: str
    new: str
    check: Callable


def layer(layer, shape=(4,), **options):
    """The check of a layer, by the complex step on NumPy."""
    return functools.partial(check_layer, layer, shape, method="complex", on="numpy", **options)


def cost(name):
    """The check of a cost, at the values that the suite draws for it."""
    return functools.partial(test_losses.test_deltas_are_those_of_the_complex_step, name, np.float64)


def kink(name):
    return functools.partial(test_activations.test_derivatives_at_a_kink_are_the_documented_ones, name)


def network(net=None, loss=None, weights=None, penalty=None, dx=True):
    """The check of the gradient of a mean cost."""
    net = net or fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Serial((fnn.Dense(3), fnn.Sigmoid())), fnn.Dense(3)))
    rng, loss = np.random.default_rng(0), loss or fnn.Quadratic()
    params = net.init(fnn.random.key(0, backend="numpy"), (3,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    arguments = net, loss, params, x, y, weights
    return functools.partial(check_gradients, *arguments, penalty=penalty, method="complex", on="numpy")


SOME = np.array([0.0, 1.0, 2.0, 0.5, 1.0])


def infinite_cost_of_weight_0():
    """An example that does not count, but whose cost is infinite."""
    run = fnn.value_and_grad(fnn.Identity(), fnn.ExponentialCost(), need_dx=True)
    with np.errstate(over="ignore", invalid="ignore"):
        value, (_, dx) = run((), np.array([[30.0], [1.0]]), np.zeros((2, 1)), np.array([0.0, 1.0]))
    np.testing.assert_allclose(value, np.e)
    np.testing.assert_allclose(dx, [[0], [2 * np.e]])


A, L, DENSE, SERIAL = activations, losses, fnn.Dense, fnn.Serial  # short names for the table
BACKPROP = importlib.import_module("fnn.backprop")  # fnn.backprop is the function
RESIDUAL = fnn.Residual(fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(4))))
PARALLEL = fnn.Parallel((fnn.Dense(2), fnn.Tanh(), fnn.Dense(3)))

FAULTS = [
    # layers
    Fault("W transposed in the error below", DENSE, "backward", "params.w,", "params.w.T,", layer(DENSE(4))),
    Fault("W transposed in its gradient", DENSE, "gradient", "contract(dy, x,", "contract(x, dy,", layer(DENSE(4))),
    Fault("bias without gradient", DENSE, "gradient", "dy.sum(axis=0)", "0 * dy.sum(axis=0)", layer(DENSE(3))),
    Fault("mean for the sum in db", DENSE, "gradient", "dy.sum(axis=0)", "dy.mean(axis=0)", layer(DENSE(3))),
    Fault("sign of the error below", DENSE, "backward", "(dy,", "(-dy,", layer(DENSE(3))),
    Fault("an error of 1 in 10⁴", DENSE, "backward", "(dy,", "(1.0001 * dy,", layer(DENSE(3))),
    Fault("bias dropped in each example", DENSE, "per_example_gradient", "dy if", "0 * dy if", layer(DENSE(3))),
    Fault("bias forgotten in the norm of each", DENSE, "per_example_norm2", "of_w + (dy * dy).sum(axis=1)", "of_w",
          layer(DENSE(3))),
    Fault("bias forgotten in the products", DENSE, "per_example_products", "of_w + dy @ dy2.T", "of_w",
          layer(DENSE(3))),
    Fault("x for x² in the squares", DENSE, "per_example_squares", "x * x", "x", layer(DENSE(3))),
    Fault("constant forgotten", fnn.Scale, "backward", "self.factor * dy", "dy", layer(fnn.Scale(1.7))),
    Fault("mean of γ forgotten", fnn.LayerNorm, "backward", "g - g.mean(axis=-1, keepdims=True) -", "g -",
          layer(fnn.LayerNorm())),
    Fault("variance held fixed", fnn.LayerNorm, "backward", " - normal * (g * normal).mean(axis=-1, keepdims=True)",
          "", layer(fnn.LayerNorm())),
    Fault("gain forgotten in the error", fnn.LayerNorm, "backward", "dy * params.gain", "dy", layer(fnn.LayerNorm())),
    Fault("gain from x, not x̂", fnn.LayerNorm, "gradient", "dy * residuals[0]", "dy * residuals[0] / residuals[1]",
          layer(fnn.LayerNorm())),
    Fault("root mean square held fixed", fnn.RMSNorm, "backward",
          "g - normal * (g * normal).mean(axis=-1, keepdims=True)", "g", layer(fnn.RMSNorm())),
    Fault("σ forgotten in the error", fnn.Standardize, "backward", "dy / params.std", "dy", layer(fnn.Standardize())),
    Fault("sign of dμ and dσ", fnn.Standardize, "gradient", "-g.sum", "g.sum", layer(fnn.Standardize())),
    Fault("x − μ for y in dσ", fnn.Standardize, "gradient", "dy * y", "dy * y * params.std", layer(fnn.Standardize())),
    Fault("σ forgotten in each example", fnn.Standardize, "per_example_gradient", "-g / params.std", "-g",
          layer(fnn.Standardize())),
    Fault("mask not applied to δ", fnn.Dropout, "backward", "self._scaled(keep, dy)", "dy", layer(fnn.Dropout(0.5))),
    Fault("scale of dropout lost in δ", fnn.Dropout, "backward", "self._scaled(keep, dy)", "keep * dy",
          layer(fnn.Dropout(0.5))),
    # compositions
    Fault("residual of the layer below", SERIAL, "propagate", "residuals[i], dy", "residuals[max(i - 1, 0)], dy",
          layer(SERIAL((fnn.Tanh(), fnn.Sigmoid())))),
    Fault("parameters of the layer below", SERIAL, "propagate", "params[i], res", "params[i - 1], res",
          layer(SERIAL((DENSE(4), DENSE(4))))),
    Fault("δ of one layer off", SERIAL, "each", "residuals, deltas)\n", "residuals, deltas[::-1])\n",
          layer(SERIAL((DENSE(4), DENSE(4))))),
    Fault("stale residual", SERIAL, "record", "residuals.append(residual)",
          "residuals.append((residuals or [residual])[0])", layer(SERIAL((DENSE(4), DENSE(4))))),
    Fault("first layer's dx in the place of δ", SERIAL, "propagate", "dy, deltas[i] =", "deltas[i], dy =",
          layer(SERIAL((DENSE(4), fnn.Tanh(), DENSE(4))))),
    Fault("dx given though not asked for", SERIAL, "propagate", "(dy if need_dx else None)", "dy", layer(SERIAL(()))),
    Fault("skip forgotten in the error", fnn.Residual, "propagate", "dy + dx", "dx", layer(RESIDUAL)),
    Fault("skip counted twice", fnn.Residual, "propagate", "dy + dx", "dy + dy + dx", layer(RESIDUAL)),
    Fault("branches not summed", fnn.Parallel, "propagate", "dx + of_branch", "of_branch", layer(PARALLEL)),
    Fault("δ of branches misplaced", fnn.Parallel, "propagate", "dy[..., start:end]", "dy[..., :end - start]",
          layer(PARALLEL)),
    Fault("frozen weights learn", fnn.Frozen, "each", "rule(self, params, residuals, None)",
          "trees.Fixed(self.layer.each(rule, params.params, residuals, deltas))", layer(fnn.Frozen(DENSE(3)))),
    # activations
    Fault("kink on the wrong side", fnn.Relu, "backward", "a > 0", "a >= 0", kink("relu")),
    Fault("kink on the wrong side", fnn.LeakyRelu, "backward", "bent(z, da,", "bent(z - 1e-300, da,", kink("leaky")),
    Fault("kink on the wrong side", fnn.HardTanh, "backward", "(z <= 1)", "(z < 1)", kink("hard tanh")),
    Fault("upper kink forgotten", fnn.Relu6, "backward", " & (a < 6)", "",
          layer(fnn.Relu6(), np.array([[1.0, 7.0, -1.0, 3.0]]))),
    Fault("derivative at 6", fnn.Relu6, "backward", "a < 6", "a <= 6", kink("relu6 at 6")),
    Fault("derivative of elu at 0", fnn.Elu, "backward", "a > 0", "a >= 0", kink("elu")),
    Fault("α forgotten", fnn.Elu, "backward", "a + self.alpha", "a + 1", layer(fnn.Elu(0.5))),
    Fault("1 + a for 1 − a", fnn.Sigmoid, "backward", "(1 - a)", "(1 + a)", layer(fnn.Sigmoid())),
    Fault("z for a", fnn.Sigmoid, "forward", "return a, a", "return a, z", layer(fnn.Sigmoid())),
    Fault("square forgotten", fnn.Tanh, "backward", "(1 - a) * (1 + a)", "(1 - a)", layer(fnn.Tanh())),
    Fault("½ forgotten", fnn.BipolarSigmoid, "backward", "0.5 * ", "", layer(fnn.BipolarSigmoid())),
    Fault("z for z²", fnn.ArcTan, "backward", "z * z", "z", layer(fnn.ArcTan())),
    Fault("square forgotten", fnn.Softsign, "backward", "(d * d)", "d", layer(fnn.Softsign())),
    Fault("cube is a square", fnn.Isrlu, "backward", "r * r * r", "r * r", layer(fnn.Isrlu())),
    Fault("softmax without its off-diagonal", fnn.Softmax, "backward", "(da - (da * a).sum(axis=-1, keepdims=True))",
          "da * (1 - a)", layer(fnn.Softmax())),
    Fault("temperature forgotten", fnn.Softmax, "backward", " * (1 / self.temperature)", "", layer(fnn.Softmax(2.0))),
    Fault("sum over the batch", fnn.LogSoftmax, "backward", "axis=-1", "axis=0", layer(fnn.LogSoftmax())),
    Fault("density forgotten", fnn.Gelu, "backward", "gate + z * density", "gate", layer(fnn.Gelu())),
    Fault("2.001 for 2 under the root", fnn.Gelu, "backward", "math.sqrt(0.5 / math.pi)",
          "math.sqrt(1 / (2.001 * math.pi))", layer(fnn.Gelu())),
    Fault("3 forgotten in the cubic", fnn.Gelu, "backward", "1 + 3 * _CUBIC", "1 + _CUBIC", layer(fnn.Gelu(True))),
    Fault("β squared", fnn.Swish, "backward", "self._beta(params, z) * z", "self._beta(params, z) ** 2 * z",
          layer(fnn.Swish(1.5))),
    Fault("z for z² in dβ", fnn.Swish, "per_example_gradient", "z * z *", "z *", layer(fnn.Swish(learnt=True))),
    Fault("halves changed over", fnn.Glu, "backward", "(da * s, da * u * (s * (1 - s)))",
          "(da * u * (s * (1 - s)), da * s)", layer(fnn.Glu())),
    Fault("slope learnt where z > 0 too", fnn.PRelu, "per_example_gradient", "where(z >= 0, 0, da * z)",
          "where(z >= 0, da * z, da * z)", layer(fnn.PRelu())),
    Fault("summed over the units", A.Learnt, "of_example", "flat if self.per_unit else", "",
          layer(fnn.PRelu(per_unit=True))),
    Fault("dα is dz", fnn.PElu, "per_example_gradient", "of_alpha = namespace(z).where(z >= 0, t, expm1_below(t))",
          "of_alpha = alpha / beta * rise", layer(fnn.PElu())),
    Fault("β not squared in dβ", fnn.PElu, "per_example_gradient", "-da * (alpha / beta) * t", "-da * alpha * t",
          layer(fnn.PElu())),
    Fault("another slope for δ", fnn.RRelu, "forward", "return slope * z, slope",
          "return slope * z, xp.where(z >= 0, slope, 0.2)", layer(fnn.RRelu())),
    Fault("the 1 of α itself forgotten", fnn.SoftExponential, "per_example_gradient", "series) + 1",
          "series)", layer(fnn.SoftExponential(0.5))),
    Fault("logarithm's branch for both", fnn.SoftExponential, "backward", "alpha < 0", "alpha < 1",
          layer(fnn.SoftExponential(0.5))),
    Fault("a for 1 − a in σ(−z)", fnn.LogSigmoid, "backward", "logistic(-z)", "logistic(z)", layer(fnn.LogSigmoid())),
    Fault("root squared", fnn.Squareplus, "backward", "a / root", "a / root**2", layer(fnn.Squareplus())),
    Fault("z + 3 for 2z + 3", fnn.HardSwish, "backward", "2 * z + 3", "z + 3", layer(fnn.HardSwish())),
    # costs
    Fault("2a − y for a − y", fnn.Quadratic, "delta", "return a -", "return 2 * a -", cost("quadratic")),
    Fault("sign of the error", fnn.MeanSquaredError, "delta", "a - floating(y, a.dtype)", "floating(y, a.dtype) - a",
          cost("mean_squared")),
    Fault("mean over outputs forgotten", fnn.MeanSquaredError, "delta", "2 / outputs(a)", "2", cost("mean_squared")),
    Fault("large errors not bounded", fnn.Huber, "delta", "self.threshold)", "1e9)", cost("huber")),
    Fault("τ counted twice", fnn.ExponentialCost, "value_and_delta", "2 * r *", "2 * self.tau * r *",
          cost("exponential")),
    Fault("labels one off", fnn.SoftmaxCrossEntropy, "value_and_delta", "e / total - hot",
          "e / total - namespace(hot).roll(hot, 1, 1)", cost("softmax_labels")),
    Fault("smoothing forgotten in δ", fnn.SigmoidBinaryCrossEntropy, "delta", "self._smoothed(z, y)",
          "floating(y, z.dtype)", cost("sigmoid_smooth")),
    Fault("the misprint a(1−a)(a−y)", fnn.BinaryCrossEntropy, "value_and_delta", "slope - slope_of_no",
          "-a * (1 - a) * (a - y)", cost("binary_cross_entropy")),
    Fault("1/a forgotten", fnn.CrossEntropy, "slope", "-y / a", "-y", cost("cross_entropy")),
    Fault("a for a²", fnn.ItakuraSaito, "slope", "(a * a)", "a", cost("itakura_saito")),
    Fault("√ forgotten", fnn.Hellinger, "slope", "namespace(a, y).sqrt(y / a)", "y / a", cost("hellinger")),
    Fault("no tangent below ε", L.probabilities.Guarded, "value_and_delta", " + slope * (a - g)", "",
          lambda: check_loss(fnn.CrossEntropy(eps=0.1), np.full((1, 2), 0.05), np.ones((1, 2)) / 2, method="complex")),
    Fault("zero weights never learn", fnn.Perceptron, "delta", "z * y > 0", "z * y >= 0",
          test_losses.test_a_perceptron_learns_from_zero_weights_and_predicts_the_sign),
    Fault("1 + yz for 1 − yz", fnn.Hinge, "delta", "z * y >= 1", "z * y >= -1", cost("hinge")),
    # backpropagation
    Fault("1/N lost", BACKPROP, "mean_cost", "slope * share\n", "slope * 1.0\n", network()),
    Fault("1/N lost with weights", BACKPROP, "mean_cost", "return value, slope * shares",
          "return value, slope * weights", network(weights=SOME)),
    Fault("weights forgotten", BACKPROP, "differentiate", "delta * shares", "delta / len(losses)",
          network(weights=SOME)),
    Fault("δ of weight 0 not masked", BACKPROP, "differentiate", "where((weights > 0).reshape(tall), delta, 0)",
          "where(True, delta, 0)", infinite_cost_of_weight_0),
    Fault("½ of the root forgotten", fnn.RootMeanSquaredError, "outer", "0.5 /", "1 /",
          network(loss=fnn.RootMeanSquaredError())),
    Fault("penalty without gradient", BACKPROP, "differentiate", "g + cast(p, g.dtype)", "g",
          network(penalty=fnn.L2(0.1))),
    Fault("penalty counted twice", fnn.L2, "gradient", "c * w", "2 * c * w", network(penalty=fnn.L2(0.1))),
    Fault("biases penalised", L.penalties, "_each", "w.ndim > 1", "w.ndim > 0",
          functools.partial(test_losses.test_penalties_by_hand, "numpy")),
    Fault("L1 is L2", fnn.L1, "gradient", "namespace(w).sign(w)", "w", network(penalty=fnn.L1(0.1))),
]  # fmt: skip


@contextlib.contextmanager
def planted(fault):
    """The library with a fault in it."""
    original = vars(fault.where)[fault.name]
    head, colon, body = textwrap.dedent(inspect.getsource(original)).partition(":\n")
    assert fault.old in body, f"{fault.old!r} is not in {fault.name}"
    body = body.replace(fault.old, fault.new).replace("super()", f"super({fault.where.__name__}, self)")
    scope = dict(original.__globals__)
    exec(compile(head + colon + body, f"<{fault.what}>", "exec"), scope)
    if inspect.ismodule(fault.where):  # wherever it was imported
        places = [m for n, m in sys.modules.items() if n.split(".")[0] == "fnn" and vars(m).get(fault.name) is original]
    else:
        places = [fault.where]
    for place in places:
        setattr(place, fault.name, scope[fault.name])
    try:
        yield
    finally:
        for place in places:
            setattr(place, fault.name, original)


def killed_by(fault):
    """What the check says of the fault, or None if it passes it."""
    fault.check()
    with planted(fault):
        try:
            fault.check()
        except AssertionError as error:
            return error
    return None


def main():
    survivors = 0
    for number, fault in enumerate(FAULTS, 1):
        error = killed_by(fault)
        survivors += error is None
        where = f"{fault.where.__name__.removeprefix('fnn.')}.{fault.name}"
        lines = {line[:15].strip(): line[16:] for line in str(error).splitlines()[1:]}
        found = str(error).partition("\n")[0].partition(": ")[2] or "by the value found"
        if "ratio" in lines:
            found = f"{lines['index'].split(' =')[0]}, ratio {lines['ratio'].split(':')[0]}"
        print(f"{number:>3}  {fault.what:<36} {where:<40} {'SURVIVED' if error is None else 'killed ' + found}")
    print(f"{len(FAULTS) - survivors} of {len(FAULTS)} planted faults killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
