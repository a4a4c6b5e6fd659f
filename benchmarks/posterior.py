"""Laplace's approximation beside laplace-torch: the same numbers, the time of both, and memory of a wide last layer.

    python benchmarks/posterior.py
    python benchmarks/posterior.py --smoke

First the posteriors of one network in float64, on NumPy and in PyTorch, with the same weights, data and prior: the
largest difference of the outputs' variances, over the largest variance, and of the marginal likelihoods. Where biases
are learnt laplace-torch keeps them in blocks of their own, so that Kronecker products are compared without biases. Then
784-128-10 in float32: the time of a fit to 2,000 examples and of the variances of the outputs for 200, each library as
its documentation has it. Last the memory that the compiler plans for a last layer of 512 × 3,100.

laplace-torch imports torchvision where it is there, which has to be made for the same PyTorch as is installed.
"""

import itertools
import warnings

import numpy as np
from common import harness

import fnn
from fnn import laplace

SHAPES = {"diagonal": "diag", "kronecker": "kron", "full": "full"}
TAU, SIGMA, SOME = 0.3, 0.7, 200  # examples of which outputs are predicted: laplace-torch makes all of J


def theirs():
    """laplace-torch; raises ImportError also where it is there and cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import laplace as peer
            import torch
    except RuntimeError as error:  # of a torchvision that is made for another PyTorch
        raise ImportError(str(error)) from error
    return peer, torch


def problem(sizes, n, bias, loss, dtype):
    """A network, parameters off their initial values, and data."""
    rng = np.random.default_rng(0)
    layers = [part for size in sizes[1:] for part in (fnn.Dense(size, bias=bias), fnn.Tanh())][:-1]
    net = fnn.Serial(tuple(layers))
    params = net.init(fnn.random.key(0, backend="numpy"), sizes[:1], dtype)
    params = fnn.trees.map(lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype), params)
    x, of_classes = rng.normal(size=(n, sizes[0])).astype(dtype), isinstance(loss, fnn.SoftmaxCrossEntropy)
    y = rng.integers(0, sizes[-1], n) if of_classes else rng.normal(size=(n, sizes[-1])).astype(dtype)
    return net, params, x, y


def in_torch(sizes, params, x, y, bias, options):
    """The same by laplace-torch: `(posterior, data)`, not yet fitted."""
    peer, torch = theirs()
    layers = [torch.nn.Linear(i, o, bias=bias) for i, o in itertools.pairwise(sizes)]
    for layer, p in zip(layers, params[::2], strict=True):
        layer.weight.data = torch.tensor(p.w)
        if bias:
            layer.bias.data = torch.tensor(p.b)
    net = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.Tanh())][:-1])
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    return peer.Laplace(net, prior_precision=TAU, **options), torch.utils.data.DataLoader(data, batch_size=len(x))


def differences():
    """The largest difference from laplace-torch, of variances and of evidence, for each posterior."""
    rows, sizes, (_, torch) = {}, (5, 6, 4, 3), theirs()
    for (name, theirs_), last, loss in itertools.product(
        SHAPES.items(), (False, True), (fnn.SoftmaxCrossEntropy(), fnn.Quadratic())
    ):
        bias, classes = name != "kronecker", isinstance(loss, fnn.SoftmaxCrossEntropy)
        net, params, x, y = problem(sizes, 30, bias, loss, np.float64)
        ours = laplace.fit(
            net, loss, params, (x, y), name, last_layer=last, prior_precision=TAU, noise=1.0 if classes else SIGMA
        )
        torch.set_default_dtype(torch.float64)
        options = {"likelihood": "classification"} if classes else {"likelihood": "regression", "sigma_noise": SIGMA}
        options |= {"subset_of_weights": "last_layer" if last else "all", "hessian_structure": theirs_}
        peer, data = in_torch(sizes, params, x, y, bias, options)
        peer.fit(data)
        evidence = peer.log_marginal_likelihood().item()
        covariance = peer._glm_predictive_distribution(torch.tensor(x))[1].detach().numpy()
        torch.set_default_dtype(torch.float32)
        variance = laplace.outputs(ours, x).variance
        apart = abs(variance - np.einsum("nkk->nk", covariance)).max() / variance.max()
        of_evidence = abs(float(laplace.log_marginal_likelihood(ours)) / evidence - 1)
        what = f"{name}{', last layer' if last else ''}, {type(loss).__name__}"
        rows[what] = {"variance": float(apart), "evidence": of_evidence}
        assert max(rows[what].values()) < 1e-6, (what, rows[what])
    return rows


def timed(sizes, n, options):
    """Seconds of a fit and of the variances of all outputs, by Kronecker products and for the last layer."""
    import jax

    loss = fnn.SoftmaxCrossEntropy()
    net, params, x, y = problem(sizes, n, True, loss, np.float32)
    on_jax = jax.tree.map(jax.numpy.asarray, (params, x, y))
    sides, outputs, some = {}, jax.jit(laplace.outputs), on_jax[1][:SOME]
    for last in (False, True):
        what = "last layer" if last else "all layers"
        fit = lambda last=last: laplace.fit(net, loss, on_jax[0], on_jax[1:], last_layer=last, prior_precision=TAU)
        fitted = fit()
        sides[f"fit, {what}, fnn"] = lambda fit=fit: jax.block_until_ready(fit())
        sides[f"variances, {what}, fnn"] = lambda fitted=fitted: jax.block_until_ready(outputs(fitted, some))

        def of_peer(last=last):
            subset = {"subset_of_weights": "last_layer" if last else "all", "hessian_structure": "kron"}
            return in_torch(sizes, params, x, y, True, {"likelihood": "classification"} | subset)

        try:
            peer, data = of_peer()
            peer.fit(data)
        except ImportError as error:
            print(f"left out: laplace-torch ({error})", flush=True)
            continue
        inputs = data.dataset.tensors[0][:SOME]
        sides[f"fit, {what}, laplace-torch"] = lambda of_peer=of_peer: (lambda made: made[0].fit(made[1]))(of_peer())
        sides[f"variances, {what}, laplace-torch"] = lambda p=peer, x=inputs: p._glm_predictive_distribution(x)[1]
    return harness.turns({name: harness.seconds(run) for name, run in sides.items()}, options)


def planned(inputs, classes, n):
    """The bytes of arguments, temporary arrays and results of the variances of a last layer, as compiled."""
    import jax

    net, one = fnn.Dense(classes), jax.ShapeDtypeStruct((), np.float32)
    sized = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
    block = fnn.curvature.Eigen(sized(inputs + 1, inputs + 1), sized(classes, classes), sized(classes, inputs + 1))
    held = (fnn.backend.Held(thing) for thing in (net, fnn.SoftmaxCrossEntropy()))
    params = fnn.DenseParams(sized(classes, inputs), sized(classes))
    posterior = laplace.Posterior(*held, params, fnn.DenseParams(block, None), one, one, one, one)
    found = jax.jit(laplace.outputs).lower(posterior, sized(n, inputs)).compile().memory_analysis()
    return {kind: getattr(found, f"{kind}_size_in_bytes") for kind in ("temp", "argument", "output")}


def main():
    options = harness.parse(harness.parser(__doc__, repeats=5))
    sizes, n = ((20, 8, 5), 64) if options.smoke else ((784, 128, 10), 2000)
    try:
        apart = differences()
    except ImportError as error:
        print(f"left out: laplace-torch ({error})", flush=True)
        apart = {}
    rows = [[what, f"{found['variance']:.0e}", f"{found['evidence']:.0e}"] for what, found in apart.items()]
    text = harness.table(("from laplace-torch, relative", "variances", "marginal likelihood"), rows)
    times = timed(sizes, n, options)
    low = {name: harness.lower(taken) for name, taken in times.items()}
    rows = []
    for name, ours in low.items():
        if name.endswith(", fnn"):
            peer = low.get(f"{name.removesuffix('fnn')}laplace-torch")
            rows.append([name.removesuffix(", fnn"), f"{1e3 * ours:.0f}", f"{ours / peer:.2f}" if peer else ""])
    heading = (f"{'-'.join(map(str, sizes))}, {n:,} examples", "fnn, ms", "over laplace-torch")
    text += "\n\n" + harness.table(heading, rows)
    inputs, classes, n = (32, 100, 8) if options.smoke else (512, 3100, 256)
    memory = planned(inputs, classes, n)
    text += f"\n\nThe variances of {n} examples by a last layer of {inputs} × {classes:,} take "
    text += f"{sum(memory.values()) / 1e6:.0f} MB, as compiled: "
    text += f"{memory['argument'] / 1e6:.0f} of arguments, {memory['temp'] / 1e6:.0f} of temporary arrays."
    harness.publish("posterior", "Laplace", text, {"apart": apart, "times": times, "memory": memory}, options)


if __name__ == "__main__":
    main()
