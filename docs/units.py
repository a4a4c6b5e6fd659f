"""The table of activations and costs, made from the code itself: formula, derivative, range, source, measured error.

    python docs/units.py             writes docs/units.md and docs/units.png
    python docs/units.py --check     writes nothing; fails if the table is out of date or a derivative is wrong

The formulas are those of the docstrings, which stand above the code that computes them. The errors are measured: the
derivative by hand on NumPy against `jax.vjp` of the formula and against the complex step, in float64, and in float32
against float64. Each is the largest error over the largest entry, at 1,000 drawn examples, of dz and of every
parameter.
"""

import inspect
import re
import sys
from pathlib import Path

import numpy as np

import fnn
from fnn.activations.base import Activation
from fnn.losses.probabilities import Guarded

HERE, N, K = Path(__file__).parent, 1000, 4
plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
jax = fnn.backend.need_jax("the table of units")
jax.config.update("jax_enable_x64", True)


def kinds(module, base):
    """The public classes of a module, one of each."""
    found = [getattr(module, name) for name in module.__all__]
    made = [cls for cls in found if inspect.isclass(cls) and issubclass(cls, base)]
    return [cls() for cls in made if cls not in (base, fnn.activations.Learnt, fnn.FunctionLoss)]


ACTIVATIONS = [*kinds(fnn.activations, Activation), fnn.Gelu(approximate=True), fnn.Swish(learnt=True)]
ACTIVATIONS.sort(key=repr)
COSTS = kinds(fnn.losses, fnn.Loss)


def described(thing):
    """Formula, derivative, range and source of a docstring, whose first paragraph is equations (GELU has two)."""
    paragraphs = inspect.getdoc(type(thing)).split("\n\n")
    cells = [cell.strip() for cell in re.split(r"\s{4,}|\n", paragraphs[getattr(thing, "approximate", 0)])]
    of_range = next(cell for cell in cells if cell.startswith("range"))
    derivatives = [cell for cell in cells if re.match(r"(d[zαβuv]|δ|∂a)\S* ?=?", cell)]
    formulas = [cell for cell in cells if cell not in (*derivatives, of_range)]
    source = next(p for p in paragraphs if p.startswith("Source: ")).removeprefix("Source: ").replace("\n", " ")
    return "; ".join(formulas), "; ".join(derivatives), of_range.removeprefix("range").strip(), source


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
    v = fnn.trees.map(lambda a: rng.normal(size=a.shape), point)
    step = (c * f(fnn.trees.map(lambda a, v: a + 1e-30j * v, point, v)).imag / 1e-30).reshape(N, -1).sum(axis=1)
    of_x = (found["x"] * v["x"]).reshape(N, -1).sum(axis=1)  # of each example, along a direction of its own
    of_params = [(g * d).sum() for g, d in zip(*map(fnn.trees.leaves, (found["p"], v["p"])), strict=True)]
    by_step = error(of_x, step) if not of_params else error(of_x.sum() + sum(of_params), step.sum())
    narrow = fnn.trees.map(lambda a: a.astype(np.float32), point)
    exact = by_hand(fnn.trees.map(lambda a: a.astype(np.float64), narrow), c.astype(np.float32).astype(np.float64))
    return by_jax, by_step, error(by_hand(narrow, c.astype(np.float32)), exact)


def errors_of_activation(layer):
    z = np.random.default_rng(0).normal(size=(N, K)) * 3
    params = layer.init(fnn.random.key(0, backend="numpy"), (K,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.3, params)

    def by_hand(point, c):
        _, residuals = layer.forward(point["p"], point["x"])
        backward, gradient = layer.backward(point["p"], residuals, c), layer.gradient(point["p"], residuals, c)
        return {"x": backward, "p": gradient}

    return errors(lambda point: layer.forward(point["p"], point["x"])[0], by_hand, {"x": z, "p": params})


def target(loss, rng):
    """Targets that the cost takes."""
    for y in (rng.normal(size=(N, K)), rng.choice([-1.0, 1.0], (N, K)), rng.dirichlet(np.ones(K), N)):
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

    def by_hand(point, c):
        return {"x": loss.delta(point["x"], y.astype(c.dtype)) * c[:, None], "p": ()}

    return errors(lambda point: loss.value(point["x"], y), by_hand, {"x": a, "p": ()})


def table(title, things, measure):
    """A Markdown table, and the same without its measured errors, which differ from machine to machine."""
    heads = [title, "formula", "derivative", "range", "jax", "complex", "float32", "source"]
    rows, plain = [heads, ["---"] * len(heads)], [heads]
    for thing in things:
        formula, derivative, of_range, source = (text.replace("|", "\\|") for text in described(thing))
        found = measure(thing)
        assert found[0] <= 1e-12, (thing, found)
        assert found[1] <= 1e-12, (thing, found)
        assert found[2] <= 1e-5, (thing, found)
        cells = [f"`{thing!r}`", formula, derivative, of_range]
        rows.append([*cells, *("0" if e == 0 else f"{e:.0e}" for e in found), source])
        plain.append([*cells, source])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows), plain


def picture(path):
    """Each activation and its derivative, on NumPy; of softmax and GLU the first of two units, the other at 0 and 1."""
    rows = -(-len(ACTIVATIONS) // 6)
    figure, grid = plt.subplots(rows, 6, figsize=(12, 1.75 * rows), layout="constrained", sharex=True)
    z = np.linspace(-7, 7, 1401)
    for axes in grid.flat[len(ACTIVATIONS) :]:
        axes.set_visible(False)
    for axes, layer in zip(grid.flat, ACTIVATIONS, strict=False):
        other, moved = (1.0, 1) if isinstance(layer, fnn.Glu) else (0.0, 0)
        pair = np.stack([z, np.full_like(z, other)][:: -1 if moved else 1], axis=1)
        params = layer.init(fnn.random.key(0, backend="numpy"), (2,), np.float64)
        if isinstance(layer, fnn.SoftExponential):
            params = type(params)(np.array([0.3]))
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
    activations, plain = table("activation", ACTIVATIONS, errors_of_activation)
    costs, plain_of_costs = table("cost", COSTS, errors_of_cost)
    text = f"""# Activations and costs

Made by `python docs/units.py` from the docstrings in [fnn/activations](../fnn/activations) and
[fnn/losses](../fnn/losses); δ is the error that arrives, ∂L/∂a, and of a cost the derivative ∂ℓ/∂a (or ∂ℓ/∂z) that
leaves. The columns `jax` and `complex` hold the largest error of the derivative by hand, on NumPy in float64, against
`jax.vjp` of the formula and against the complex step, over the largest entry, at {N:,} examples of {K} units; `float32`
that of float32 against float64.

![Each activation and its derivative](units.png)

## Activations

Values at kinks are those of `jax.nn`, and stand in the docstrings. Parameters that are learnt (α, β) have a gradient of
their own.

{activations}

## Costs

N examples, K outputs each, C classes. All give one value for each example; the mean over the examples is taken once,
in `backprop`.

{costs}
"""
    if "--check" in sys.argv:
        written = (HERE / "units.md").read_text(encoding="utf-8")
        stale = [row[0] for row in plain + plain_of_costs if not all(f"| {cell} |" in written for cell in row)]
        if stale or not (HERE / "units.png").exists():
            sys.exit(f"docs/units.md is out of date for {stale}; run python docs/units.py")
        print(f"{len(ACTIVATIONS)} activations and {len(COSTS)} costs: the table is true to the code")
        return
    (HERE / "units.md").write_text(text, encoding="utf-8")
    picture(HERE / "units.png")
    print(f"{HERE / 'units.md'}: {len(ACTIVATIONS)} activations and {len(COSTS)} costs")


if __name__ == "__main__":
    main()
