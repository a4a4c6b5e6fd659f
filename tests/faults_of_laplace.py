"""Faults of Laplace's approximation and of calibration, and the checks that have to find them: those of the suite."""

import functools

import numpy as np
import test_calibration
import test_laplace
from planting import Fault, given, instead, result, times

import fnn
from fnn import calibration, laplace, outer, trees
from fnn.curvature import Eigen
from fnn.factors import Outer
from fnn.laplace import evidence, parts, posterior, predictive

check = lambda *args, **options: functools.partial(test_laplace.check, *args, **options)
REGRESSION = functools.partial(test_laplace.test_a_regression_has_targets_with_normal_noise, fnn.Quadratic())
TUNED = functools.partial(test_laplace.test_tuned_is_the_maximum_of_the_evidence, "full")
DRAWN = functools.partial(test_laplace.test_samples_have_the_mean_and_the_covariance, "frozen below", "full")
AVERAGED = functools.partial(test_laplace.test_probabilities_are_averages, "mlp")
LINEARIZED = test_laplace.test_samples_of_outputs_are_those_of_the_linearized_network
BINS = functools.partial(test_calibration.test_reliability_is_that_of_a_loop, test_calibration.W)
LIKELIHOOD = functools.partial(test_calibration.test_the_likelihood_is_that_of_scikit_learn, test_calibration.W)
LAST = check("mlp", "kronecker", last_layer=True)


def with_weights(change):
    """The sums of a batch with other weights."""
    return lambda f: lambda params, kept, x, y, w, key, **how: f(params, kept, x, y, change(w), key, **how)


def by_position(f):
    """Σ_t of the squares for the square of Σ_t."""

    def wrong(g, d):
        if not isinstance(g, Outer) or g.delta.ndim == 2:
            return f(g, d)
        return sum(f(Outer(g.delta[:, t], g.a[:, t]), d) for t in range(g.delta.shape[1]))

    return wrong


def without_bias(x, kept, f):
    q_a, q_g, values = kept.w
    return (x @ q_a[:-1]) ** 2 @ f(values).T @ (q_g * q_g).T


def of_all(posterior):
    return sum((p * p).sum() for p in trees.leaves(posterior.params))


FAULTS = [
    Fault("weights forgotten", posterior, "_of_batch", with_weights(np.ones_like), check("mlp", "diagonal")),
    Fault("examples that fill up a batch counted", posterior, "_of_batch",
          with_weights(lambda w: np.where(w == 0, 1, w)), check("linear", "full")),
    Fault("A summed over batches", posterior, "_sums_of_blocks", result(
          lambda sums: [s and (s[0], s[1], 1 + 0 * s[2]) for s in sums]), check("mlp", "kronecker")),
    Fault("A averaged over batches as if they were alike", posterior, "_sums_of_blocks", result(
          lambda sums: [s and (s[0] / s[2], s[1], 1 + 0 * s[2]) for s in sums]), check("own twice", "kronecker")),
    Fault("frozen parameters uncertain", parts, "_learnt", result(lambda flags: [True for _ in flags]),
          check("frozen between", "full")),
    Fault("all layers for the last", posterior, "uncertain",
          given(lambda net, params, last: (net, params, False)), LAST),
    Fault("σ forgotten", posterior, "variance_of", instead(
          lambda p: lambda values: 1 / (values + p.prior_precision)), REGRESSION),
    Fault("σ for σ²", predictive, "variance_of", instead(
          lambda p: lambda values: 1 / (values / p.noise + p.prior_precision)), REGRESSION),
    Fault("τ forgotten", predictive, "variance_of", instead(lambda p: lambda values: 1 / (values + 1)), LAST),
    Fault("variance for standard deviation", posterior, "variance_of",
          lambda f: lambda p: lambda values: f(p)(values) ** 2, DRAWN),
    Fault("the logarithm of the determinant twice", evidence, "spectrum", result(lambda values: values + values),
          check("mlp", "diagonal")),
    Fault("certain parameters in the prior", evidence, "_squared_norm", instead(of_all), LAST),
    Fault("examples counted, not targets", posterior, "outputs", instead(lambda a: 1), REGRESSION),
    Fault("the optimum at another ratio", evidence, "_best", result(lambda pair: (1.01 * pair[0], pair[1])), TUNED),
    Fault("the noise of another optimum", evidence, "_best", result(lambda pair: (pair[0], 1.01 * pair[1])), TUNED),
    Fault("bias lost in the last layer", predictive, "_of_dense", instead(without_bias), LAST),
    Fault("squares of positions summed", outer, "weighed", by_position, check("few positions", "diagonal")),
    Fault("half of a variance by factors", outer, "weighed", times(0.5), check("norms", "kronecker")),
    Fault("eigenvectors forgotten", predictive, "rotated", lambda f: lambda params, g, blocks: f(
          params, g, trees.map(lambda b: b._replace(g=np.eye(len(b.g))), blocks,
                               is_leaf=lambda b: isinstance(b, Eigen))), check("mlp", "kronecker")),
    Fault("standard deviation in the probit", predictive, "outputs",
          result(lambda g: g._replace(variance=np.sqrt(g.variance))), AVERAGED),
    Fault("targets without noise", laplace, "targets", instead(laplace.outputs), REGRESSION),
    Fault("outputs without their mean", laplace, "output_samples", lambda f: lambda posterior, x, *rest: (
          f(posterior, x, *rest) - laplace.outputs(posterior, x).mean), LINEARIZED),
    Fault("bins of equal weight", calibration, "Reliability", lambda f: lambda share, *rest: f(
          np.full_like(share, 1 / len(share)), *rest), BINS),
    Fault("probabilities of the first class", calibration, "classes_of", result(
          lambda of: of._replace(actual=0 * of.actual)), LIKELIHOOD),
]  # fmt: skip
