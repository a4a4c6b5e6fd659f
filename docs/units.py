"""The table of layers, activations and costs, made from the code itself: formula, derivative, source, measured error.

    python docs/units.py             writes docs/units.md and docs/units.png
    python docs/units.py --check     writes nothing; fails if the table is out of date or a derivative is wrong

The formulas are those of the docstrings, which stand above the code that computes them. The errors are measured: the
derivative by hand on NumPy against `jax.vjp` of the formula and against the complex step, in float64, and in float32
against float64, at 1,000 drawn examples, of the input and of every parameter: the largest error over the largest entry.
The complex step goes along a direction drawn for each example, or for each parameter.
"""

import dataclasses
import inspect
import re
import sys
from pathlib import Path

import numpy as np

import fnn
from fnn.layers.activations import Activation
from fnn.losses.probabilities import Guarded
from fnn.static import registered

HERE, N, K = Path(__file__).parent, 1000, 4
plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
jax = fnn.backend.need_jax("the table of units")
jax.config.update("jax_enable_x64", True)


def leaves(base):
    """Each class of fnn's that extends `base`, except bases, which name no source."""
    classes = [cls for name, cls in registered(base).items() if name.startswith("fnn.")]
    return [cls for cls in classes if not (cls.__subclasses__() and "Source: " not in inspect.getdoc(cls))]


def kinds(base):
    """One of each class that `leaves` gives, except those with arguments."""
    required = lambda field: field.default is field.default_factory is dataclasses.MISSING
    return [cls() for cls in leaves(base) if not any(map(required, dataclasses.fields(cls)))]


D, S = fnn.Dense, fnn.Serial
SEQUENCES = {"x": (4, 2), "length": ()}
# A layer of each class, and the shape of an example; no class of fnn's may be missing but these.
LAYERS = {
    D(3): (4,), fnn.Conv(4, (2, 2), groups=2): (3, 3, 2), fnn.MaxPool((2, 2), 1): (3, 3, 2),
    fnn.AvgPool((2, 2), 1, "same"): (3, 3, 2), fnn.GlobalMaxPool(): (3, 2), fnn.GlobalAvgPool(): (3, 2),
    fnn.Embedding(7, 3): (4,), fnn.Rnn(3): (4, 2), fnn.Lstm(3): (4, 2), fnn.Gru(3): (4, 2),
    fnn.LayerNorm(): (4,), fnn.RMSNorm(): (4,), fnn.Standardize(): (4,), fnn.Scale(0.5): (4,), fnn.Flatten(): (2, 3),
    fnn.Dropout(0.5): (4,), S((D(3), fnn.Tanh())): (4,), fnn.Residual(D(4)): (4,),
    fnn.Parallel((D(2), D(3))): (4,), fnn.Last(fnn.Rnn(3, all_states=True)): SEQUENCES,
}  # fmt: skip
LEFT_OUT = fnn.Function, fnn.Frozen, fnn.Remat, fnn.composition.Recorder, fnn.energies.Chain  # the last in rules.md
ACTIVATIONS = sorted([*kinds(Activation), fnn.Gelu(approximate=True), fnn.Swish(learnt=True)], key=repr)
COSTS = sorted(kinds(fnn.Loss), key=repr)


def described(thing):
    """Formula, derivative, range and source of a docstring, whose first paragraph is equations (GELU has two)."""
    paragraphs = inspect.getdoc(type(thing)).split("\n\n")
    cells = [cell.strip() for cell in re.split(r"\s{4,}|\n", paragraphs[getattr(thing, "approximate", 0)])]
    of_range = next(cell for cell in cells if cell.startswith("range"))
    derivatives = [cell for cell in cells if re.match(r"(d[zαβuv]|δ|∂a)\S* ?=?", cell)]
    formulas = [cell for cell in cells if cell not in (*derivatives, of_range)]
    source = next(p for p in paragraphs if p.startswith("Source: ")).removeprefix("Source: ").replace("\n", " ")
    return "; ".join(formulas), "; ".join(derivatives), of_range.removeprefix("range").strip(), source


def equations(layer):
    """Formulas, shapes, derivatives and source of a layer's docstring, whose equations are indented."""
    text = inspect.getdoc(type(layer))
    lines = re.findall(r"^ {4}\S.*$", text.split("Args:")[0].split(">>>")[0], re.MULTILINE)
    formulas, shapes, derivatives, last = [], [], [], []
    for cell in (cell for line in lines for cell in re.split(r"\s{3,}", line.strip())):
        if "=" not in cell and re.match(r"[^()]{1,12} \(", cell):
            last = shapes
        elif re.match(r"d[a-zA-Zθμσ]|δ|there is no d", cell):
            last = derivatives
        elif "=" in cell or not last:
            last = formulas
        else:  # a word on what stands before it
            cell = f"{last.pop()}, {cell}"
        last.append(re.sub(r"\s+", " ", cell))
    source = next((p for p in text.split("\n\n") if p.startswith("Source: ")), "").removeprefix("Source: ")
    return "; ".join(formulas), "; ".join(shapes), "; ".join(derivatives), source.replace("\n", " ")


def error(found, wanted):
    """The largest error over the largest entry, of the worst leaf."""
    pairs = zip(fnn.trees.leaves(found), fnn.trees.leaves(wanted), strict=True)
    largest = [(np.abs(np.asarray(a) - np.asarray(b)).max(), np.abs(np.asarray(b)).max()) for a, b in pairs]
    return max(e / size if size else float(e > 0) for e, size in largest)


def errors(f, by_hand, point):
    """Three errors of `by_hand(point, c)`, the derivative of Σ c f(point)."""
    rng = np.random.default_rng(1)
    c = rng.normal(size=np.shape(f(point)))
    found = by_hand(point, c)
    by_jax = error(found, jax.vjp(f, fnn.trees.map(jax.numpy.asarray, point))[1](jax.numpy.asarray(c))[0])
    by_step = max(along(f, point, found, name, c, rng) for name in point if fnn.trees.leaves(point[name]))
    narrow = fnn.trees.map(lambda a: a.astype(np.float32), point)
    exact = by_hand(fnn.trees.map(lambda a: a.astype(np.float64), narrow), c.astype(np.float32).astype(np.float64))
    return by_jax, by_step, error(by_hand(narrow, c.astype(np.float32)), exact)


def along(f, point, found, name, c, rng):
    """The error against the complex step that moves x, or one parameter, along a direction of its own."""
    worst, count = 0.0, len(fnn.trees.leaves(point[name]))
    for i in range(count):
        number = iter(range(count))
        leaf = fnn.trees.leaves(point[name])[i]
        v = rng.normal(size=leaf.shape)
        moved = fnn.trees.map(lambda a, i=i, v=v, n=number: a + 1e-30j * v if next(n) == i else a, point[name])
        step = (c * f(point | {name: moved}).imag / 1e-30).reshape(len(np.atleast_1d(c)), -1).sum(axis=1)
        slope = (fnn.trees.leaves(found[name])[i] * v).reshape(len(v), -1).sum(axis=1)
        same = len(step) == len(slope) == N
        worst = max(worst, error(slope if same else slope.sum(), step if same else step.sum()))
    return worst


def errors_of_activation(layer):
    z = np.random.default_rng(0).normal(size=(N, K)) * 3
    params = layer.init(fnn.random.key(0, backend="numpy"), (K,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.3, params)

    def by_hand(point, c):
        _, residuals = layer.forward(point["p"], point["x"])
        backward, gradient = layer.backward(point["p"], residuals, c), layer.gradient(point["p"], residuals, c)
        return {"x": backward, "p": gradient}

    return errors(lambda point: layer.forward(point["p"], point["x"])[0], by_hand, {"x": z, "p": params})


def errors_of_layer(layer):
    rng, shape = np.random.default_rng(0), LAYERS[layer]
    several, key = isinstance(shape, dict), fnn.random.key(1, backend="numpy") if layer.draws else None
    x = rng.normal(size=(N, *(shape["x"] if several else shape)))
    symbols = rng.integers(0, layer.symbols, x.shape) if isinstance(layer, fnn.Embedding) else None
    new = layer.init(fnn.random.key(0, backend="numpy"), shape, np.float64)
    params = fnn.trees.map(lambda p: p + 0.3 * rng.normal(size=p.shape), new)

    def forward(point):
        x = point["x"] if symbols is None else symbols
        return layer.forward(point["p"], {"x": x, "length": 1 + np.arange(N) % 4} if several else x, key)

    def by_hand(point, c):
        dx, deltas = layer.propagate(point["p"], forward(point)[1], c, symbols is None)
        return {
            "x": dx["x"] if several else () if dx is None else dx,
            "p": layer.gradient(point["p"], forward(point)[1], deltas),
        }

    return errors(lambda point: forward(point)[0], by_hand, {"x": x if symbols is None else (), "p": params})


def target(loss, rng):
    """Targets that the cost takes."""
    numbers, signs, shares = rng.normal(size=(N, K)), rng.choice([-1.0, 1.0], (N, K)), rng.dirichlet(np.ones(K), N)
    bits, labels, half = rng.integers(0, 2, (N, K)), rng.integers(0, K, N), numbers[:, : K // 2]
    for y in (numbers, signs, shares, bits, labels, half):
        try:
            loss.check((N, K), y)
        except ValueError:
            continue
        return y
    raise AssertionError(f"{loss}: no target fits")


def errors_of_cost(loss):
    rng = np.random.default_rng(0)
    a = rng.uniform(0.02, 0.98, (N, K)) if isinstance(loss, Guarded) else rng.normal(size=(N, K))
    y = target(loss, rng)

    def f(point):  # of a cost with an outer function the cost of the batch, of the others that of each example
        value = loss.value(point["x"], y)
        return loss.outer(value.mean())[0] if of_batch else value

    def by_hand(point, c):
        delta = loss.delta(point["x"], y.astype(point["x"].dtype) if y.dtype.kind == "f" else y)
        if of_batch:
            return {"x": c * loss.outer(loss.value(point["x"], y).mean())[1] * (delta / N), "p": ()}
        return {"x": delta * c[:, None], "p": ()}

    of_batch = type(loss).outer is not fnn.Loss.outer
    return errors(f, by_hand, {"x": a, "p": ()})


def written(thing):
    """A unit as one would write it, with the numbers that its formula names."""
    if thing in LAYERS:
        return repr(thing)
    shown = [
        f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value!r}"
        for field in dataclasses.fields(thing)
        if isinstance(value := getattr(thing, field.name), float) or value != field.default
    ]
    return f"{type(thing).__name__}({', '.join(shown)})"


def table(heads, things, describe, measure):
    """A Markdown table."""
    rows = [[*heads, "jax", "complex", "float32", "source"], ["---"] * (len(heads) + 4)]
    for thing in things:
        *cells, source = (re.sub(r"([|*])", r"\\\1", text) for text in describe(thing))
        found = measure(thing)
        assert max(found[:2]) <= 1e-12, (thing, found)
        assert found[2] <= 1e-5, (thing, found)
        measured = ("0" if e == 0 else f"{e:.0e}" for e in found)
        rows.append([f"`{written(thing)}`", *cells, *measured, source])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def without_errors(text):
    """The page without its measured errors, which differ from machine to machine."""
    return re.sub(r"(\| (0|\de-\d\d) ){3}(?=\|)", "", text)


def picture(path):
    """Each activation and its derivative, on NumPy; of softmax and GLU the first of two units, the other at 0 and 1."""
    drawn = [unit for unit in ACTIVATIONS if unit != fnn.Swish(learnt=True)]  # which begins as Swish()
    drawn = [fnn.SoftExponential(0.3) if isinstance(unit, fnn.SoftExponential) else unit for unit in drawn]
    rows = -(-len(drawn) // 6)
    figure, grid = plt.subplots(rows, 6, figsize=(12, 1.75 * rows), layout="constrained", sharex=True)
    z = np.linspace(-7, 7, 1401)
    for axes in grid.flat[len(drawn) :]:
        axes.set_visible(False)
    for axes, layer in zip(grid.flat, drawn, strict=False):
        other, moved = (1.0, 1) if isinstance(layer, fnn.Glu) else (0.0, 0)
        pair = np.stack([z, np.full_like(z, other)][:: -1 if moved else 1], axis=1)
        params = layer.init(fnn.random.key(0, backend="numpy"), (2,), np.float64)
        a, residuals = layer.forward(params, pair)
        first = np.concatenate([np.ones((len(z), 1)), np.zeros((len(z), a.shape[1] - 1))], axis=1)
        slope = layer.backward(params, residuals, first)[:, moved]
        axes.axhline(0, color="0.85", linewidth=0.8)
        axes.axvline(0, color="0.85", linewidth=0.8)
        jumps = np.abs(np.diff(slope, prepend=slope[0])) > 0.1
        axes.plot(z, np.where(np.abs(np.diff(a[:, 0], prepend=a[0, 0])) > 0.5, np.nan, a[:, 0]), color="#0072B2")
        axes.plot(z, np.where(jumps, np.nan, slope), "--", color="#D55E00")
        axes.set_title(repr(layer) if len(repr(layer)) < 24 else repr(layer).replace("(", "\n("), fontsize=8)
        axes.set(ylim=(-2.4, 6.8), xticks=(-6, -3, 0, 3, 6), yticks=(-2, 0, 2, 4, 6))
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Each activation a(z), solid, and its derivative da/dz, dashed", fontsize=11)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def main():
    missing = {cls for cls in leaves(fnn.Layer) if not issubclass(cls, (Activation, *LEFT_OUT))} - set(
        map(type, LAYERS)
    )
    assert not missing, f"layers without a row: {missing}"
    heads = ["formula", "derivative", "range"]
    layers = table(["layer", "formula", "shapes", "derivative"], LAYERS, equations, errors_of_layer)
    activations = table(["activation", *heads], ACTIVATIONS, described, errors_of_activation)
    costs = table(["cost", *heads], COSTS, described, errors_of_cost)
    text = f"""# Layers, activations and costs

Made by `python docs/units.py` from the docstrings in `fnn/layers` and `fnn/losses`; δ is
the error that arrives, ∂L/∂y (or ∂L/∂a), and of a cost the derivative ∂ℓ/∂a (or ∂ℓ/∂z) that leaves. The columns `jax`
and `complex` hold the largest error of the derivative by hand, on NumPy in float64, against `jax.vjp` of the formula
and against the complex step along drawn directions, over the largest entry, at {N:,} examples; `float32` that of
float32 against float64.

## Layers

dy is the change of the output along a direction (forward mode).

{layers}

## Activations

![Each activation and its derivative](units.png)

Values at kinks are those of `jax.nn`, and stand in the docstrings. Parameters that are learnt (α, β) have a gradient of
their own.

{activations}

## Costs

N examples, K outputs each, C classes. All give one value for each example; the mean over the examples is taken once,
in `backprop`.

{costs}
"""
    if "--check" in sys.argv:
        if without_errors((HERE / "units.md").read_text(encoding="utf-8")) != without_errors(text):
            sys.exit("docs/units.md is out of date; run python docs/units.py")
        print(
            f"{len(LAYERS)} layers, {len(ACTIVATIONS)} activations, {len(COSTS)} costs: the table is true to the code"
        )
        return
    (HERE / "units.md").write_text(text, encoding="utf-8")
    picture(HERE / "units.png")
    print(f"{HERE / 'units.md'}: {len(LAYERS)} layers, {len(ACTIVATIONS)} activations and {len(COSTS)} costs")


if __name__ == "__main__":
    main()
