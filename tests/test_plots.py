"""What a figure shows is what the numbers are: each is read back from what was drawn. Wrong input is refused before."""

import functools
import os
import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text

import fnn
from fnn import diagnostics, errors, plots
from fnn.plots import runs, structure

pytestmark = pytest.mark.numpy_alone
KEY = fnn.random.key(0, backend="numpy")
NET, ONE = fnn.mlp((4, 3), activation=fnn.Tanh()), fnn.mlp((3, 1))
PARAMS, OF_ONE = NET.init(KEY, (2,)), ONE.init(KEY, (2,))
LOSS, LOGISTIC = fnn.SoftmaxCrossEntropy(), fnn.SigmoidBinaryCrossEntropy()
X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
Y = np.arange(40) % 3
STATS = diagnostics.statistics(NET, LOSS)(PARAMS, X, Y)
NESTED = fnn.Serial(
    (
        fnn.Dense(4),
        fnn.Serial((fnn.Residual(fnn.Serial((fnn.Dense(4), fnn.Relu()))), fnn.LayerNorm())),
        fnn.Parallel((fnn.Dense(2), fnn.Identity())),
        fnn.Frozen(fnn.Dense(2)),
    )
)
DEEP = NESTED.init(KEY, (2,))
IMAGES, SEQUENCES = fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Relu())), fnn.Serial((fnn.Rnn(3), fnn.Dense(3)))
OF_IMAGES, OF_SEQUENCES = IMAGES.init(KEY, (3, 3, 1)), SEQUENCES.init(KEY, (4, 2))
LEAVES = ["0 Dense", "1.0.0.0 Dense", "1.0.0.1 Relu", "1.1 LayerNorm", "2.0 Dense", "2.1 Identity", "3.0 Dense"]


def blank():
    return Figure().subplots()


def draw(axes):
    """Everything that is drawn at last is drawn without a warning, too."""
    axes.figure.draw_without_rendering()
    return axes


def on(backend, tree):
    return fnn.trees.map(fnn.backend.jnp.asarray, tree) if backend == "jax" else tree


@functools.cache
def expected(name):
    """What is drawn from NumPy's parameters."""
    axes = blank()
    of_figures()[name](axes)
    return content(axes)


def of_figures(params=PARAMS, x=X, y=Y):
    """Every figure: a function of Axes."""
    backend = "numpy" if params is PARAMS else "jax"
    found, of_images, of_sequences = (on(backend, tree) for tree in (STATS, OF_IMAGES, OF_SEQUENCES))
    names = diagnostics.layer_names(NET)
    return {
        "learning_curves": lambda axes: plots.learning_curves(axes, x.T),
        "decision_regions": lambda axes: plots.decision_regions(axes, NET, LOSS, params, x, y),
        "hidden_plane": lambda axes: plots.hidden_plane(axes, NET, params, x, y),
        "first_layer": lambda axes: plots.first_layer(axes, params, shape=(1, 2)),
        "activations": lambda axes: plots.activations(axes, NET, params, x),
        "gradient_flow": lambda axes: plots.gradient_flow(axes, found, names),
        "alignment": lambda axes: plots.alignment(axes, {"angle_0": 90 * abs(x[:, 0])}),
        "confusion": lambda axes: plots.confusion(axes, fnn.confusion_matrix(NET.apply(params, x), y)),
        "reliability": lambda axes: plots.reliability(axes, fnn.reliability(LOSS.predict(NET.apply(params, x)), y)),
        "loss_surface": lambda axes: plots.loss_surface(axes, NET, LOSS, params, x, y, key=KEY, steps=3),
        "network": lambda axes: plots.network(axes, NET, (2,), params),
        "feature_maps": lambda axes: plots.feature_maps(axes, IMAGES, of_images, x[:9, :1].reshape(3, 3, 1), layer="1"),
        "unrolled": lambda axes: plots.unrolled(axes, SEQUENCES, of_sequences, x[:4]),
        "flow": lambda axes: plots.flow(axes, NET, LOSS, params, x[0], y[0]),
    }


def content(axes):
    """What was drawn, as text and numbers, to be compared."""
    lines = [np.asarray(line.get_xydata()) for line in axes.lines]
    images = [np.ma.filled(image.get_array().astype(float), np.nan) for image in axes.images]
    return [text.get_text() for text in axes.texts], lines, images


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.thorough(backend="jax")
def test_each_figure_returns_its_axes_and_is_the_same_from_parameters_on_either_backend(backend):
    x, y = on(backend, (X, Y))
    settings = lambda: {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}
    before = settings()
    given = on(backend, PARAMS)
    for name, here in of_figures(given, x, y).items():
        axes = blank()
        assert here(axes) is axes, name
        (texts, lines, images), (wanted, lines2, images2) = content(draw(axes)), expected(name)
        assert texts == wanted, name
        for a, b in zip([*lines, *images], [*lines2, *images2], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)
    assert settings() == before


def in_a_process(code):
    """What the code prints in a process of its own: on NumPy, for JAX takes a second to be imported."""
    command, environment = [sys.executable, "-W", "error", "-c", code], os.environ | {"FNN_BACKEND": "numpy"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()


def test_importing_the_module_imports_no_matplotlib():
    code = "import sys, fnn; fnn.plots; print(*[m for m in sys.modules if m.startswith('matplotlib')])"
    assert in_a_process(code) == ""


@pytest.mark.thorough
def test_drawing_needs_no_pyplot():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_plots as t\n"
        "for f in t.of_figures().values(): f(t.blank())\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert in_a_process(code) == "False"


@pytest.mark.parametrize("name", of_figures())
def test_without_matplotlib_the_extra_is_named(name, monkeypatch):
    axes = blank()
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(errors.MissingExtraError, match=r"matplotlib: pip install 'fnn\[plots\]'"):
        of_figures()[name](axes)


@pytest.mark.parametrize("name", of_figures())
@pytest.mark.parametrize("wrong", [None, Figure(), Figure().subplots(1, 2)], ids=["None", "a figure", "two axes"])
def test_what_is_no_axes_is_refused(name, wrong):
    with pytest.raises(errors.KindError, match="axes: expected an Axes of matplotlib, such as"):
        of_figures()[name](wrong)


NORMED, GATED = fnn.Serial((fnn.Dense(2), fnn.LayerNorm())), fnn.Serial((fnn.Dense(4), fnn.Glu()))
NAN = np.array([[np.nan, 1.0], [0.0, 1.0]])
REFUSED = {
    "no curves": (errors.ShapeError, "expected at least one", lambda a: plots.learning_curves(a, {})),
    "a curve of three axes": (
        errors.ShapeError,
        "late: expected shape",
        lambda a: plots.learning_curves(a, {"late": X[None]}),
    ),
    "a curve of nothing": (errors.ShapeError, r"got \(0,\)", lambda a: plots.learning_curves(a, [])),
    "curves of text": (
        errors.KindError,
        "curves: expected an array of numbers",
        lambda a: plots.learning_curves(a, "ab"),
    ),
    "x of another length": (
        errors.ShapeError,
        r"x: expected shape \(2,\)",
        lambda a: plots.learning_curves(a, [1, 2], x=[1]),
    ),
    "three inputs": (
        errors.ShapeError,
        r"two inputs, shape \(N, 2\), got \(4, 3\)",
        lambda a: plots.decision_regions(a, NET, LOSS, PARAMS, np.ones((4, 3)), Y[:4]),
    ),
    "an input that is not a number": (
        errors.DataError,
        r"x\[0, 0\]",
        lambda a: plots.decision_regions(a, NET, LOSS, PARAMS, NAN, Y[:2]),
    ),
    "a label too large": (
        errors.DataError,
        "labels from 0 to 2, got 0 to 3",
        lambda a: plots.decision_regions(a, NET, LOSS, PARAMS, X, np.arange(40) % 4),
    ),
    "what are no labels": (
        errors.DataError,
        "whole numbers, got 0.5",
        lambda a: plots.hidden_plane(a, NET, PARAMS, X, Y / 2),
    ),
    "a plane bent beyond all bounds": (
        errors.DataError,
        "outputs of 1 Tanh",
        lambda a: plots.hidden_plane(a, NET, fnn.trees.map(lambda p: p * np.nan, PARAMS), X, Y),
    ),
    "too few labels": (
        errors.ShapeError,
        r"labels \(40,\)",
        lambda a: plots.decision_regions(a, NET, LOSS, PARAMS, X, Y[:3]),
    ),
    "no cost": (errors.KindError, "loss: expected", lambda a: plots.decision_regions(a, NET, Y, PARAMS, X, Y)),
    "a network that has not learnt but diverged": (
        errors.DataError,
        "prediction: expected finite",
        lambda a: plots.decision_regions(a, NET, LOSS, fnn.trees.map(lambda p: p * np.nan, PARAMS), X, Y),
    ),
    "no such layer": (
        errors.ArgumentError,
        "index of .*1 Tanh.*, got 3",
        lambda a: plots.hidden_plane(a, NET, PARAMS, X, Y, layer=3),
    ),
    "a layer by name": (errors.KindError, "layer", lambda a: plots.hidden_plane(a, NET, PARAMS, X, Y, layer="1 Tanh")),
    "a layer of one unit": (
        errors.ShapeError,
        "two units or more, got 2 Dense of 1",
        lambda a: plots.hidden_plane(a, ONE, OF_ONE, X, Y, layer=-1),
    ),
    "a plane of three inputs": (
        errors.ShapeError,
        "two inputs",
        lambda a: plots.hidden_plane(a, NET, PARAMS, np.ones((4, 3)), Y[:4]),
    ),
    "images of another size": (
        errors.ShapeError,
        r"\(units, 28 · 28\), got \(4, 2\)",
        lambda a: plots.first_layer(a, PARAMS),
    ),
    "an image of three sides": (errors.ShapeError, "shape", lambda a: plots.first_layer(a, PARAMS, shape=(1, 2, 1))),
    "no Dense layer": (errors.KindError, "parameters with a Dense", lambda a: plots.first_layer(a, ((), ()))),
    "weights that are no numbers": (errors.DataError, "weights", lambda a: plots.first_layer(a, NAN, shape=(1, 2))),
    "inputs of another width": (
        errors.ShapeError,
        r"params\[0\]\.w: expected shape \(4, 3\), got \(4, 2\)",
        lambda a: plots.activations(a, NET, PARAMS, np.ones((4, 3))),
    ),
    "no examples": (errors.ShapeError, "at least one example", lambda a: plots.activations(a, NET, PARAMS, X[:0])),
    "outputs that are no numbers": (
        errors.DataError,
        "outputs of 0 Dense",
        lambda a: plots.activations(a, NET, PARAMS, NAN),
    ),
    "figures of another kind": (errors.KindError, "diagnostics.Statistics", lambda a: plots.gradient_flow(a, X, ["0"])),
    "a run without angles": (
        errors.KindError,
        r"Aligned\(\.\.\.\).*got \['loss'\]",
        lambda a: plots.alignment(a, {"loss": X}),
    ),
    "no history": (errors.KindError, "expected that of a run", lambda a: plots.alignment(a, X)),
    "names of other layers": (
        errors.ShapeError,
        r"\(2,\) or \(epochs, 2\), got \(3,\)",
        lambda a: plots.gradient_flow(a, STATS, ["0", "1"]),
    ),
    "a matrix that is not square": (errors.ShapeError, r"\(C, C\), got \(40, 2\)", lambda a: plots.confusion(a, X)),
    "a curve that is none": (errors.KindError, "what fnn.reliability returns", lambda a: plots.reliability(a, [1.0])),
    "counts below 0": (errors.DataError, "at least 0, got -1", lambda a: plots.confusion(a, [[-1]])),
    "counts that are no numbers": (errors.DataError, "matrix", lambda a: plots.confusion(a, NAN)),
    "a class without a name": (
        errors.ShapeError,
        "2 names, got 1",
        lambda a: plots.confusion(a, np.eye(2), classes=["cat"]),
    ),
    "neither key nor ends": (
        errors.ArgumentError,
        "either a key",
        lambda a: plots.loss_surface(a, NET, LOSS, PARAMS, X, Y),
    ),
    "one end": (
        errors.KindError,
        "two trees",
        lambda a: plots.loss_surface(a, NET, LOSS, PARAMS, X, Y, ends=(PARAMS,)),
    ),
    "the end of another network": (
        errors.ShapeError,
        r"ends\[1\]",
        lambda a: plots.loss_surface(a, NET, LOSS, PARAMS, X, Y, ends=(PARAMS, OF_ONE)),
    ),
    "limits in the wrong order": (
        errors.ArgumentError,
        "lower limit first",
        lambda a: plots.loss_surface(a, NET, LOSS, PARAMS, X, Y, key=KEY, limits=(1, -1)),
    ),
    "one limit": (
        errors.ShapeError,
        "limits",
        lambda a: plots.loss_surface(a, NET, LOSS, PARAMS, X, Y, key=KEY, limits=1),
    ),
    "a surface without targets": (
        errors.ShapeError,
        "y: expected",
        lambda a: plots.loss_surface(a, NET, LOSS, PARAMS, X, Y[:3], key=KEY),
    ),
    "no network": (errors.KindError, "net: expected a layer", lambda a: plots.network(a, PARAMS, (2,))),
    "nothing that recurs": (
        errors.ArgumentError,
        r"layer: expected the place of a recurrent layer, one of \[\], got None",
        lambda a: plots.unrolled(a, NET, PARAMS, X[0]),
    ),
    "a layer that does not recur": (
        errors.ArgumentError,
        r"one of \['0'\], got '1'",
        lambda a: plots.unrolled(a, SEQUENCES, OF_SEQUENCES, X[:4], layer="1"),
    ),
    "a cost without a target": (
        errors.ArgumentError,
        "y: expected a cost and a target together",
        lambda a: plots.unrolled(a, SEQUENCES, OF_SEQUENCES, X[:4], loss=LOSS),
    ),
    "several sequences": (
        errors.ShapeError,
        r"expected input of shape \(T, I\), positions and inputs, got \(2, 4, 2\)",
        lambda a: plots.unrolled(a, SEQUENCES, OF_SEQUENCES, X[:8].reshape(2, 4, 2)),
    ),
    "too few names of positions": (
        errors.ShapeError,
        "labels: expected a name for each of 4 positions, got 3",
        lambda a: plots.unrolled(a, SEQUENCES, OF_SEQUENCES, X[:4], labels="abc"),
    ),
    "states that are no numbers": (
        errors.DataError,
        "states: expected finite numbers",
        lambda a: plots.unrolled(a, SEQUENCES, fnn.trees.map(lambda p: p * np.nan, OF_SEQUENCES), X[:4]),
    ),
    "a flow through a layer that is not dense": (
        errors.KindError,
        "Dense layers and elementwise activations, got LayerNorm",
        lambda a: plots.flow(a, NORMED, LOSS, NORMED.init(KEY, (2,)), X[0], 0),
    ),
    "a flow through a gate of two inputs": (
        errors.KindError,
        "elementwise activations, got Glu",
        lambda a: plots.flow(a, GATED, LOSS, GATED.init(KEY, (2,)), X[0], 0),
    ),
    "a flow through too many units": (
        errors.ShapeError,
        "at most 6 units in a layer.*got 7",
        lambda a: plots.flow(a, fnn.mlp((7,)), LOSS, fnn.mlp((7,)).init(KEY, (2,)), X[0], 0),
    ),
    "too few units to show": (errors.ArgumentError, "most", lambda a: plots.network(a, NET, (2,), most=2)),
    "parameters of another network": (
        errors.ShapeError,
        "params.*expected",
        lambda a: plots.network(a, NET, (2,), OF_ONE),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_before_anything_is_drawn(case):
    kind, message, call = REFUSED[case]
    axes = blank()
    before = len(axes.get_children()), axes.get_yscale(), axes.get_xlim()
    with pytest.raises(kind, match=message):
        call(axes)
    assert (len(axes.get_children()), axes.get_yscale(), axes.get_xlim()) == before


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_curve_is_its_data_and_of_several_seeds_their_mean_and_standard_deviation():
    seeds, alone = np.random.default_rng(1).random((5, 7)), np.arange(1.0, 5.0)
    axes = plots.learning_curves(blank(), {"five": seeds, "one": alone})
    np.testing.assert_allclose(axes.lines[0].get_xydata(), np.stack([np.arange(1, 8), seeds.mean(axis=0)], axis=1))
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), alone)
    (band,) = axes.collections  # of the five, not of the one
    edge = band.get_paths()[0].vertices
    for step, low, high in zip(range(1, 8), *(seeds.mean(0) + k * seeds.std(0, ddof=1) for k in (-1, 1)), strict=True):
        at = edge[edge[:, 0] == step, 1]
        np.testing.assert_allclose((at.min(), at.max()), (low, high))
    assert "± 1 SD of 5 seeds" in axes.get_xlabel()
    assert [text.get_text() for text in axes.texts] == ["five", "one"]
    assert [text.xy for text in axes.texts] == [(7, seeds.mean(axis=0)[-1]), (4, 4.0)]


def test_curves_differ_in_colour_and_in_style_also_those_of_a_second_call():
    axes = plots.learning_curves(blank(), [3, 2, 1], x=[10, 20, 30])
    plots.learning_curves(axes, [1, 2, 3], x=[10, 20, 30])
    first, second = axes.lines
    assert first.get_xdata().tolist() == [10, 20, 30]
    assert not same_color(first.get_color(), second.get_color())
    assert first.get_linestyle() != second.get_linestyle()
    assert not axes.texts, "nothing to say of curves without a label"


@pytest.mark.parametrize("ends", [(1, 1, 1, 1), (0, 0.01, 0.02, 1), (1, 0.99, 0, 0.01)])
def test_labels_of_curves_that_end_together_do_not_overlap_and_keep_their_order(ends):
    axes = plots.learning_curves(blank(), {f"curve {i}": [0, 1, end] for i, end in enumerate(ends)})
    draw(axes)
    boxes = [Text.get_window_extent(axes.texts[i]) for i in np.argsort(ends, kind="stable")]  # without their arrows
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))  # pixels
    assert boxes[0].y0 >= axes.get_window_extent().y0 - 1


def test_a_run_that_diverged_is_labelled_where_it_was_last_seen():
    axes = plots.learning_curves(blank(), {"lost": [1.0, 2.0, np.nan], "never": [np.nan, np.inf, np.nan]})
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("lost", (2, 2.0))]
    plots.learning_curves(axes, {"one of two": [[1.0, 1.0, np.inf], [1.0, 3.0, 1.0]]})
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), [1, 2, np.nan])
    draw(axes)


def test_the_flow_through_the_layers_is_that_of_the_statistics():
    names = diagnostics.layer_names(NET)
    axes = draw(plots.gradient_flow(blank(), STATS, names))
    errors_, gradients = axes.lines
    np.testing.assert_allclose(errors_.get_xydata(), np.stack([[0, 1, 2], STATS.delta], axis=1))
    np.testing.assert_allclose(gradients.get_xydata(), np.stack([[0, 2], STATS.gradient[[0, 2]]], axis=1))
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_angles_are_drawn_by_layer_beneath_a_line_at_90_degrees():
    history = {"loss": [1.0, 2.0], "angle_0": [80.0, 40.0], "angle_2.1": [[100.0, 60.0], [120.0, 20.0]]}
    axes = draw(plots.alignment(blank(), history))
    chance, first, mean = axes.lines
    assert set(chance.get_ydata()) == {90}
    np.testing.assert_array_equal(first.get_ydata(), [80, 40])
    np.testing.assert_array_equal(mean.get_ydata(), [110, 40])
    assert [text.get_text() for text in axes.texts] == ["layer 0", "layer 2.1"]
    assert axes.get_ylim()[0] < 0 < 120 < axes.get_ylim()[1]


def test_over_the_epochs_each_layer_that_learns_has_a_line_and_no_other():
    telemetry = diagnostics.Statistics(*(np.stack([v, 2 * np.asarray(v)]) for v in STATS))
    axes = draw(plots.gradient_flow(blank(), telemetry, diagnostics.layer_names(NET)))
    assert [text.get_text() for text in axes.texts] == ["0 Dense", "2 Dense"]
    for line, layer in zip(axes.lines, (0, 2), strict=True):
        np.testing.assert_allclose(
            line.get_xydata(), np.stack([[1, 2], STATS.gradient[layer] * np.array([1, 2])], axis=1)
        )


def test_what_has_no_place_on_a_logarithmic_axis_is_left_out():
    for shape in ((3,), (2, 3)):
        none = np.broadcast_to([0, np.inf, 0.0], shape)
        axes = draw(plots.gradient_flow(blank(), diagnostics.Statistics(*[none] * len(STATS)), ["a", "b", "c"]))
        assert not any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in axes.lines)


def test_the_cost_at_the_parameters_and_at_the_ends_is_that_of_evaluate(backend):
    params, ends = on(backend, (PARAMS, [NET.init(fnn.random.key(i, backend="numpy"), (2,)) for i in (1, 2)]))
    axes = draw(plots.loss_surface(blank(), NET, LOSS, params, X, Y, ends=ends, steps=5))
    of = [fnn.evaluate(NET, LOSS, p, (X, Y))["loss"] for p in (params, *ends)]
    shown = dict(text.get_text().split(": C = ") for text in axes.texts if "C" in text.get_text())
    assert shown == {name: f"{cost:.3g}" for name, cost in zip(("θ", "θ₁", "θ₂"), of, strict=True)}
    assert axes.get_xlim() == axes.get_ylim() == (-0.5, 1.5)
    assert [tuple(*line.get_xydata()) for line in axes.lines] == [(0, 0), (1, 0), (0, 1)]


def test_the_costs_of_a_plane_are_those_of_the_parameters_there(backend):
    params, first, second = on(backend, tuple(NET.init(fnn.random.key(i, backend="numpy"), (2,)) for i in range(3)))
    places = [(0, 0), (1, 0), (0.5, -2), (0, 3)]
    found = runs._costs(NET, LOSS, params, first, second, X, Y, places, chunk=3)
    for (a, b), cost in zip(places, found, strict=True):
        there = fnn.trees.map(lambda p, d, e, a=a, b=b: p + a * d + b * e, params, first, second)
        np.testing.assert_allclose(cost, fnn.evaluate(NET, LOSS, there, (X, Y))["loss"], rtol=1e-5)


def test_the_first_direction_goes_across_and_the_second_up():
    ends = NET.init(fnn.random.key(1, backend="numpy"), (2,)), PARAMS  # along the second nothing changes
    axes = plots.loss_surface(blank(), NET, LOSS, PARAMS, X, Y, ends=ends, steps=5)
    paths = axes.collections[1].get_paths()
    assert len(paths) == 9
    for path in paths:  # a line to the left of the lowest place and one to the right, both upright
        across, up = (np.unique(column.round(4)) for column in path.vertices.T)
        assert len(across) == 2 < 5 <= len(up)


def test_contours_lie_where_the_surface_has_their_level():
    along = np.linspace(-1, 1, 41)
    axes = blank()
    runs._contours(axes, along, np.ma.masked_invalid(np.exp(along[None, :] + 0 * along[:, None])))
    lines = axes.collections[1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        np.testing.assert_allclose(path.vertices[:, 0], np.log(level), atol=0.01)
    np.testing.assert_allclose(np.diff(np.log(lines.levels)), 0.2, rtol=1e-6)
    assert len(lines.levels) == 9


@pytest.mark.parametrize("surface", [np.ones((3, 3)), np.full((3, 3), np.nan), np.arange(9.0).reshape(3, 3) - 4])
def test_a_surface_that_is_flat_or_below_zero_or_not_finite_is_drawn_as_far_as_it_can_be(surface):
    axes = blank()
    runs._contours(axes, np.arange(3), np.ma.masked_invalid(surface))
    draw(axes)
    assert len(axes.collections) == (2 if surface[0, 0] < 0 else 0)


def test_random_directions_are_as_long_as_each_unit_is_and_leave_biases_and_frozen_layers_alone(backend):
    params = on(backend, DEEP)
    direction = runs._direction(KEY, params)
    fnn.trees.same_structure("direction", direction, params)
    for (place, d), (_, p) in zip(fnn.trees.paths(direction), fnn.trees.paths(params), strict=True):
        fixed = ".params" in place or p.ndim < 2
        length = np.zeros(len(p)) if fixed else np.linalg.norm(p, axis=1)
        np.testing.assert_allclose(np.linalg.norm(np.asarray(d).reshape(len(d), -1), axis=1), length, rtol=1e-5)
        assert fixed or not np.allclose(d, p)
    assert fnn.backend.namespace(*fnn.trees.leaves(direction)).__name__.startswith(backend)


# ---- what a network does ---------------------------------------------------------------------------------------------


def at(axes, points):
    """The values of the picture at points of the plane."""
    image = axes.images[0]
    left, right, bottom, top = image.get_extent()
    values = image.get_array()
    column = ((points[:, 0] - left) / (right - left) * values.shape[1]).astype(int)
    row = ((points[:, 1] - bottom) / (top - bottom) * values.shape[0]).astype(int)
    assert image.origin == "lower"
    return np.asarray(values[row, column])


def test_regions_are_the_classes_predicted_there():
    axes = draw(plots.decision_regions(blank(), NET, LOSS, PARAMS, X, Y))
    p = np.asarray(NET.apply(PARAMS, X))
    sure = np.diff(np.sort(p, axis=1)[:, -2:])[:, 0] > 0.02  # farther from a boundary than the middle of a pixel is
    assert sure.sum() > 30
    assert len(set(p.argmax(axis=1))) > 1
    np.testing.assert_array_equal(at(axes, X)[sure], p.argmax(axis=1)[sure])


def test_with_one_output_they_are_the_probability_and_the_boundary_lies_at_one_half():
    axes = draw(plots.decision_regions(blank(), ONE, LOGISTIC, OF_ONE, X, (Y > 0)[:, None]))
    p = np.asarray(LOGISTIC.predict(ONE.apply(OF_ONE, X)))[:, 0]
    np.testing.assert_allclose(at(axes, X), p, atol=0.02)
    (lines,) = axes.collections
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        on_line = LOGISTIC.predict(ONE.apply(OF_ONE, path.vertices))
        np.testing.assert_allclose(on_line, level, atol=0.01)
    assert 0.5 in lines.levels


@pytest.mark.parametrize("y", [Y, np.eye(3)[Y], Y.tolist()], ids=["labels", "one-hot", "a list"])
def test_each_class_has_its_examples_a_marker_and_a_colour(y):
    for axes in (
        plots.decision_regions(blank(), NET, LOSS, PARAMS, X, y),
        plots.hidden_plane(blank(), fnn.Identity(), (), X, y, layer=0),
    ):
        points = axes.lines[-3:]
        for k, line in enumerate(points):
            np.testing.assert_allclose(line.get_xydata(), X[k == Y])
        assert len({line.get_marker() for line in points}) == len({line.get_color() for line in points}) == 3
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["class 0", "class 1", "class 2"]


def grid_lines(axes):
    return [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 201]


def bend(line):
    """How far a line departs from straight, in its own length."""
    steps = np.diff(line, axis=0)
    return abs(steps - steps.mean(axis=0)).max() / np.abs(line[-1] - line[0]).max()


@pytest.mark.parametrize("layer", [fnn.Identity(), fnn.Dense(2), fnn.Dense(5), fnn.Tanh()])
def test_the_grid_stays_straight_under_what_is_affine_and_under_nothing_else(layer):
    axes = draw(plots.hidden_plane(blank(), layer, layer.init(KEY, (2,)), X, Y, layer=0))
    lines = grid_lines(axes)
    assert len(lines) == 30
    affine = not isinstance(layer, fnn.Tanh)
    assert (max(bend(line) for line in lines) < 1e-4) == affine
    if isinstance(layer, fnn.Identity):  # half of the lines upright, half level, over all examples
        assert [np.ptp(line[:, 0]) < 1e-6 for line in lines] == [True] * 15 + [False] * 15
        assert [np.ptp(line[:, 1]) < 1e-6 for line in lines] == [False] * 15 + [True] * 15
        low, high = np.min(lines, axis=(0, 1)), np.max(lines, axis=(0, 1))
        np.testing.assert_allclose((low, high), (X.min(0) - 0.1 * np.ptp(X, 0), X.max(0) + 0.1 * np.ptp(X, 0)), 1e-5)


def test_a_wide_layer_is_seen_along_its_principal_components():
    axes = plots.hidden_plane(blank(), NET, PARAMS, X, Y)
    outputs = np.asarray(fnn.Tanh().apply((), fnn.Dense(4).apply(PARAMS[0], X)), np.float64)
    centred = outputs - outputs.mean(axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    found = np.concatenate([line.get_xydata() for line in axes.lines[-3:]])
    wanted = np.concatenate([(centred @ vt[:2].T)[k == Y] for k in range(3)])
    np.testing.assert_allclose(abs(found), abs(wanted), atol=1e-5)
    shares = s**2 / (s**2).sum()
    assert axes.get_xlabel() == f"1 Tanh: PC 1 ({100 * shares[0]:.0f} %)"
    assert axes.get_ylabel() == f"1 Tanh: PC 2 ({100 * shares[1]:.0f} %)"


@pytest.mark.parametrize(("layer", "name"), [(2, "1.0.0.1 Relu"), (-1, "unit 1 of 3.0 Dense"), (-7, "0 Dense")])
def test_layers_of_nested_networks_are_chosen_by_their_place(layer, name):
    assert name in draw(plots.hidden_plane(blank(), NESTED, DEEP, X, Y, layer=layer)).get_xlabel()
    assert diagnostics.layer_names(NESTED) == LEAVES


def test_histograms_are_those_of_the_outputs_without_zeros_and_the_share_of_these_is_written():
    net = fnn.mlp((6, 4))
    params = net.init(KEY, (2,))
    axes = draw(plots.activations(blank(), net, params, X))
    z = np.asarray(net.layers[0].apply(params[0], X))
    outputs = [z, np.maximum(z, 0), np.asarray(net.apply(params, X))]
    steps = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    for row, (patch, of_layer) in enumerate(zip(steps, outputs, strict=True)):
        heights, edges, baseline = patch.get_data()
        counts = np.histogram(of_layer[of_layer != 0], edges)[0]
        np.testing.assert_allclose(heights - baseline, 0.8 * counts / counts.max())
        assert baseline == 2 - row
        assert edges[0] == min(a.min() for a in outputs)
        assert edges[-1] == max(a.max() for a in outputs)
    shares = {2 - row: f"{100 * (a == 0).mean():.0f} % are 0" for row, a in enumerate(outputs) if (a == 0).any()}
    assert {text.get_position()[1]: text.get_text() for text in axes.texts} == shares
    assert 1 in shares, "the ReLU"


def test_a_nested_network_has_a_row_for_each_layer_within_it_also_where_all_are_dead():
    for params in (DEEP, fnn.trees.map(np.zeros_like, DEEP)):
        axes = draw(plots.activations(blank(), NESTED, params, X))
        assert [label.get_text() for label in axes.get_yticklabels()] == LEAVES
    assert [text.get_text() for text in axes.texts] == ["100 % are 0"] * 7


def test_a_reliability_diagram_has_a_point_for_each_bin_that_is_not_empty():
    p, y = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, 1])
    curves = {"sure": fnn.reliability(np.eye(2)[[0, 0, 1]], y, 2), "less": fnn.reliability(p, y, 4)}
    axes = draw(plots.reliability(blank(), curves))
    diagonal, sure, less = (line.get_xydata().tolist() for line in axes.lines)
    assert diagonal == [[0, 0], [1, 1]]
    np.testing.assert_allclose(sure, [[1, 2 / 3]])
    np.testing.assert_allclose(less, [[0.6, 1], [0.85, 0.5]])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["calibrated", "sure: ECE 0.333", "less: ECE 0.367"]


def test_a_confusion_matrix_has_its_counts_as_text_true_classes_as_rows_and_shares_as_colour():
    prediction, target = np.eye(3)[[0, 1, 1, 2, 2, 2]], np.array([0, 0, 1, 1, 1, 2])
    matrix = fnn.confusion_matrix(prediction, target)
    axes = draw(plots.confusion(blank(), matrix, classes=["a", "b", "c"]))
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    for true in range(3):
        for predicted in range(3):
            count = sum((prediction.argmax(axis=1) == predicted) & (target == true))
            assert shown[predicted, true] == str(count)
    np.testing.assert_allclose(axes.images[0].get_array(), matrix / matrix.sum(axis=1, keepdims=True))
    assert axes.yaxis_inverted(), "the first row is on top"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("matrix", "texts"),
    [([[1234567, 0], [0, 0]], ["1234567", "0", "0", "0"]), ([[0.125, 2.0], [1, 1]], ["0.125", "2", "1", "1"])],
)
def test_counts_may_be_large_or_weighted_and_a_class_without_examples(matrix, texts):
    axes = draw(plots.confusion(blank(), matrix))
    assert [text.get_text() for text in axes.texts] == texts
    assert np.isfinite(axes.images[0].get_array()).all()


# ---- a network itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [1, 5, 7])
def test_each_unit_of_the_first_layer_has_a_tile_with_its_weights(units):
    w = np.random.default_rng(2).normal(size=(units, 6))
    axes = draw(plots.first_layer(blank(), w, shape=(2, 3)))
    picture = np.ma.filled(axes.images[0].get_array(), np.nan)
    columns = (picture.shape[1] + 1) // 4
    assert np.isfinite(picture).sum() == w.size
    for unit in range(units):
        row, column = 3 * (unit // columns), 4 * (unit % columns)
        np.testing.assert_array_equal(picture[row : row + 2, column : column + 3], w[unit].reshape(2, 3))
    limit = abs(w).max()
    assert axes.images[0].get_clim() == (-limit, limit)
    scale = axes.child_axes[0]
    assert [label.get_text() for label in scale.get_yticklabels()] == [f"−{limit:.2g}", "0", f"{limit:.2g}"]


def test_of_parameters_the_first_dense_layer_is_taken_wherever_it_is():
    net = fnn.Serial((fnn.LayerNorm(), fnn.Frozen(fnn.Serial((fnn.Scale(2.0), fnn.Dense(3)))), fnn.Dense(2)))
    params = net.init(KEY, (4,))
    axes, expected = (plots.first_layer(blank(), given, shape=(2, 2)) for given in (params, params[1].params[1].w))
    np.testing.assert_array_equal(content(axes)[2], content(expected)[2])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_filters_of_a_convolution_are_tiles_a_row_for_each_unit_of_several_channels(channels):
    net = fnn.Serial((fnn.Conv(4, (2, 3)), fnn.Relu(), fnn.Flatten(), fnn.Dense(2)))
    params = net.init(KEY, (4, 5, channels))
    axes = draw(plots.first_layer(blank(), params))
    picture = np.ma.filled(axes.images[0].get_array(), np.nan)
    w, columns = params[0].w, (picture.shape[1] + 1) // 4
    assert columns == (channels if channels > 1 else 2)
    for i, (unit, channel) in enumerate(np.ndindex(4, channels)):
        row, column = 3 * (i // columns), 4 * (i % columns)
        np.testing.assert_array_equal(picture[row : row + 2, column : column + 3], w[unit, :, :, channel])


def test_feature_maps_are_the_outputs_of_a_layer_for_one_image():
    net = fnn.Serial((fnn.Conv(4, (2, 3)), fnn.Relu(), fnn.Flatten(), fnn.Dense(2)))
    params, image = net.init(KEY, (4, 5, 1)), np.random.default_rng(0).normal(size=(4, 5, 1))
    for layer, stop in (("0", 1), ("1", 2)):
        axes = draw(plots.feature_maps(blank(), net, params, image, layer=layer))
        picture = np.ma.filled(axes.images[0].get_array(), np.nan)
        maps = fnn.Serial(net.layers[:stop]).apply(params[:stop], image[None])[0]
        np.testing.assert_allclose(picture[:3, 4:7], maps[:, :, 1], rtol=1e-6)
        assert axes.images[0].get_clim()[0] == (0 if layer == "1" else -abs(maps).max())
    with pytest.raises(errors.ShapeError, match=r"layer: expected the place of a layer whose output is \(N, H, W, C\)"):
        plots.feature_maps(blank(), net, params, image, layer="2")


def test_the_filters_of_a_convolution_over_sequences_are_tiles_of_channels_by_positions():
    w = np.random.default_rng(0).normal(size=(2, 3, 4))
    picture = np.ma.filled(draw(plots.first_layer(blank(), w)).axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(picture[:4, :3], w[0].T)


# ---- through time ----------------------------------------------------------------------------------------------------


def bands(axes):
    """States, errors and their lengths at each position as they are drawn, (T, units)."""
    return [np.ma.filled(image.get_array(), 0).T for image in axes.images]


@pytest.mark.parametrize("layer", [fnn.Rnn(3), fnn.Lstm(3, all_states=True), fnn.Gru(3, all_states=True)])
def test_a_layer_unrolled_shows_its_states_and_the_size_of_its_errors_at_each_position(layer):
    net, x = fnn.Serial((layer, fnn.Dense(3))), X[:10].reshape(5, 4)
    params, y = net.init(KEY, (5, 4)), np.arange(5) % 3 if layer.all_states else np.array(1)
    axes = draw(plots.unrolled(blank(), net, params, x, loss=LOSS, y=y))
    states, errors_, lengths = bands(axes)
    every = type(layer)(3, all_states=True).apply(params[0], x[None])[0]
    np.testing.assert_allclose(states, every, rtol=1e-6)
    deltas = fnn.trees.leaves(fnn.backprop(net, LOSS)(params, x[None], y[None]).deltas[0])
    squares = sum((delta[0].reshape(5, -1, 3) ** 2).sum(axis=1) for delta in deltas)
    np.testing.assert_allclose(errors_, np.sqrt(squares), rtol=1e-5)
    np.testing.assert_allclose(lengths, np.sqrt(squares.sum(axis=1, keepdims=True)), rtol=1e-5)
    assert axes.images[0].get_clim() == (-abs(states).max(), abs(states).max())
    assert axes.images[1].norm is axes.images[2].norm, "one scale for the errors"
    ends = [image.get_extent() for image in axes.images]
    assert {tuple(end[:2]) for end in ends} == {(0.5, 5.5)}
    assert ends[0][2] > ends[1][3] > ends[1][2] >= ends[2][3], "states above, errors below"
    arrows = {text.get_text(): text for text in axes.texts if text.get_text() in ("forward", "backward")}
    assert arrows["forward"].get_position()[0] < arrows["backward"].get_position()[0]
    written = [text.get_text() for text in axes.texts]
    assert f"{states[0, 0]:.2f}".replace("-", "−") in written, "few cells have their numbers"
    assert f"{lengths[-1, 0]:.0e}".replace("e-0", "e-").replace("e+0", "e") in written


def test_without_a_cost_there_are_states_only_and_positions_may_have_names():
    axes = draw(plots.unrolled(blank(), SEQUENCES, OF_SEQUENCES, X[:4], labels="word"))
    assert len(axes.images) == 1
    assert [label.get_text() for label in axes.get_xticklabels()] == list("word")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["state h\n3 units"]


def test_of_a_sequence_that_is_shorter_its_own_positions_are_drawn_and_where_no_error_comes_none_is():
    net = fnn.Serial((fnn.Embedding(9, 2), fnn.Gru(3, all_states=True), fnn.Rnn(2, all_states=True)))
    net = fnn.Serial((fnn.Last(net), fnn.Dense(3)))
    x = {"x": np.arange(7), "length": np.array(4)}
    params = net.init(KEY, {"x": (7,), "length": ()})
    for layer, units in ((None, 3), ("0.0.2", 2)):
        axes = plots.unrolled(blank(), net, params, x, loss=LOSS, y=np.array(1), layer=layer)
        assert [band.shape for band in bands(axes)] == [(4, units), (4, units), (4, 1)]
    ignoring, tagger = fnn.SoftmaxCrossEntropy(ignored=-1), fnn.Serial((fnn.Rnn(3, all_states=True), fnn.Dense(3)))
    axes = plots.unrolled(blank(), tagger, OF_SEQUENCES, X[:4], loss=ignoring, y=np.array([0, 1, -1, -1]))
    assert np.ma.getmaskarray(axes.images[1].get_array()).tolist() == [[False, False, True, True]] * 3
    assert (draw(axes).images[0].get_array() != 0).all()


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_errors_that_vanish_or_explode_are_on_a_logarithmic_scale_with_few_ticks(scale):
    layer = fnn.Rnn(16, recurrent_initializer=fnn.Normal(scale / 4))
    net = fnn.Serial((layer, fnn.Dense(3)))
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    axes = draw(plots.unrolled(blank(), net, net.init(KEY, (30, 2)), x, loss=LOSS, y=np.array(0)))
    length = bands(axes)[2][:, 0]
    seen = length[length > 0]
    assert (seen[0] < 1e-9 * seen[-1]) if scale < 1 else (seen[0] > 10 * seen[-1])
    low, high = axes.images[1].get_clim()
    assert low < seen.min() / 4
    assert high == pytest.approx(seen.max())
    bar = axes.child_axes[1]
    assert 1 <= len(bar.get_yticks()) <= 5
    assert [f"1e{np.log10(tick):.0f}" for tick in bar.get_yticks()] == [t.get_text() for t in bar.get_yticklabels()]
    assert not [text for text in axes.texts if text.get_text()[:1].isdigit()], "many cells have no numbers"


# ---- both passes -----------------------------------------------------------------------------------------------------


def in_steps(axes):
    """The texts that appear in each step, and the arrows that are shown in it alone."""
    texts, arrows = {}, {}
    for artist in axes.get_children():
        kind, _, rest = str(artist.get_gid()).partition("-")
        if kind in ("step", "during"):
            found = texts if kind == "step" else arrows
            found.setdefault(int(rest.split("-")[0]), []).append(artist)
    return {k: [t.get_text().replace("−", "-") for t in of] for k, of in texts.items()}, arrows


def test_the_flow_has_the_numbers_of_the_tape_each_in_the_step_in_which_it_is_computed():
    axes = draw(plots.flow(blank(), NET, LOSS, PARAMS, X[0], Y[0]))
    tape = fnn.backprop(NET, LOSS)(PARAMS, X[:1], Y[:1])
    grads = NET.gradient(PARAMS, tape.residuals, tape.deltas)
    texts, arrows = in_steps(axes)
    of = lambda step, letter: [float(t.split()[1]) for t in texts[step] if t.startswith(letter + " ")]
    for step, letter, wanted in (
        (1, "a", tape.outputs[1]), (2, "a", tape.outputs[2]), (4, "δ", tape.deltas[2]), (5, "∂", grads[2].w),
        (6, "δ", tape.deltas[0]), (7, "∂", grads[0].w),
    ):  # fmt: skip
        np.testing.assert_allclose(of(step, letter), np.ravel(wanted), atol=5.1e-5)
    assert f"ℓ = {float(tape.losses[0]):.4f}" in texts[3]
    assert sorted(texts) == list(range(8))
    assert {step: len(of) for step, of in arrows.items()} == {1: 8, 2: 12, 6: 12}, "forward, and back where δ goes"
    assert not any(arrow.get_visible() for of in arrows.values() for arrow in of)


def test_an_animation_shows_the_steps_in_their_order_and_leaves_the_figure_as_it_was():
    axes = plots.flow(blank(), fnn.mlp((1,)), LOGISTIC, fnn.mlp((1,)).init(KEY, (2,)), X[0], [1.0])
    axes.add_patch(arrow := matplotlib.patches.Circle((0, 0)))
    arrow.set_gid("during-1-mine")
    arrow.set_visible(False)
    svg = plots.animated(axes.figure, seconds=2.0)
    assert not arrow.get_visible()
    assert svg == plots.animated(axes.figure, seconds=2.0), "the same each time"
    assert 'id="during-1-mine"' in svg
    begins = [svg.split(f"@keyframes step-{k} ")[1].split("%")[1].split()[-1] for k in range(5)]
    assert [float(b) for b in begins] == pytest.approx([100 * k / 7 for k in range(5)], abs=0.01)
    assert "step-4 14s step-end infinite" in svg
    assert "prefers-reduced-motion: no-preference" in svg
    with pytest.raises(errors.KindError, match="figure: expected a Figure"):
        plots.animated(axes)


# ---- the diagram -----------------------------------------------------------------------------------------------------


def collections(axes):
    return [c for c in axes.collections if isinstance(c, LineCollection)]


def test_lines_are_as_wide_as_weights_are_large_and_dashed_where_they_are_negative():
    axes = draw(plots.network(blank(), NET, (2,), PARAMS))
    largest = max(abs(PARAMS[0].w).max(), abs(PARAMS[2].w).max())
    assert f"widest {largest:.2g}" in axes.get_title()
    for lines, w in zip(collections(axes), (PARAMS[0].w, PARAMS[2].w), strict=True):
        assert len(lines.get_segments()) == w.size
        np.testing.assert_allclose(lines.get_linewidths(), 2 * abs(w.ravel()) / largest, rtol=1e-5)
        dashed = [pattern is not None for _, pattern in lines.get_linestyles()]
        np.testing.assert_array_equal(dashed, w.ravel() < 0)
        for j, (out, into) in enumerate(np.ndindex(w.shape)):  # from unit to unit: the top ones are the first
            (_, below), (_, above) = lines.get_segments()[j]
            assert (below, above) == ((w.shape[1] - 1) / 2 - into, (len(w) - 1) / 2 - out)


@pytest.mark.parametrize(
    ("size", "most", "units", "slots"),
    [(8, 8, range(8), range(8)), (9, 8, [*range(6), 8], [*range(6), 7]), (100, 3, [0, 99], [0, 2])],
)
def test_large_layers_show_their_first_units_and_the_last(size, most, units, slots):
    found, heights = structure._places(size, most)
    assert found.tolist() == list(units)
    np.testing.assert_array_equal(heights, (min(size, most) - 1) / 2 - np.array(slots))
    axes = draw(plots.network(blank(), fnn.Dense(size), (2,), most=most))
    assert len(collections(axes)[0].get_segments()) == 2 * len(found)
    texts = [text.get_text() for text in axes.texts]
    assert ("⋮" in texts) == (size > most)
    assert str(size) in texts


def test_abridged_columns_keep_their_own_weights():
    w = np.zeros((20, 30), np.float32)
    w[19, 29], w[1, 0] = -3, 1.5
    axes = draw(plots.network(blank(), fnn.Dense(20, bias=False), (30,), fnn.DenseParams(w, ())))
    widths = np.array(collections(axes)[0].get_linewidths()).reshape(7, 7)
    assert (widths[6, 6], widths[1, 0]) == (2, 1)
    assert widths.sum() == 3


def test_a_nested_network_is_laid_out_in_columns_with_its_skips_and_the_names_below():
    axes = draw(plots.network(blank(), NESTED, (2,), DEEP))
    texts = [text.get_text() for text in axes.texts]
    assert [t for t in texts if t[:1].isalpha()] == ["input", "Dense", "Dense\nRelu\nLayerNorm", "Parallel", "Dense"]
    assert [t for t in texts if t.isdigit()] == ["2", "4", "4", "6", "2"]
    assert texts.count("") == 1, "the arrow of the skip connection"
    assert [len(lines.get_segments()) for lines in collections(axes)] == [8, 16, 24, 12]
    assert same_color(collections(axes)[2].get_color()[0], "0.6"), "of branches side by side no weights are shown"
    (arrow,) = (text for text in axes.texts if not text.get_text())
    assert arrow.xy[0] > arrow.get_position()[0]


def diagram(net, input_shape):
    """What is written above and below the columns, and how many lines are between them."""
    axes = draw(plots.network(blank(), net, input_shape, net.init(KEY, input_shape)))
    texts = [text.get_text() for text in axes.texts if text.get_text() not in ("", "⋮")]
    names = [text for text in texts if text[:1].isalpha()]
    return (
        axes,
        [text for text in texts if text not in names],
        names,
        [len(c.get_segments()) for c in collections(axes)],
    )


def test_a_unit_with_positions_is_drawn_once_and_pooling_links_each_to_its_own():
    layers = (
        fnn.Conv(4, (3, 3)),
        fnn.Relu(),
        fnn.MaxPool((2, 2)),
        fnn.Conv(4, (1, 1), groups=2),
        fnn.Flatten(),
        fnn.Dense(2),
    )
    axes, shapes, names, lines = diagram(fnn.Serial(layers), (6, 6, 3))
    assert shapes == ["6×6\n×3", "4×4\n×4", "2×2\n×4", "2×2\n×4", "16", "2"]
    assert names == ["input", "Conv\nRelu", "MaxPool", "Conv", "Flatten", "Dense"]
    assert lines == [3 * 4, 4, 2 * 2 + 2 * 2, 7, 7 * 2], "7 of 16 units are drawn, each from its channel"
    flat = [(above, below) for (_, below), (_, above) in collections(axes)[3].get_segments()]
    channels = {height: channel for channel, height in enumerate((1.5, 0.5, -0.5, -1.5))}
    units, heights = structure._places(16, 8)
    assert sorted(flat) == sorted(
        (h, below) for u, h in zip(units, heights, strict=True) for below in channels if channels[below] == u % 4
    )
    assert [same_color(c.get_color()[0], "0.6") for c in collections(axes)] == [True] * 4 + [False]


def test_symbols_are_units_of_the_input_and_what_recurs_has_an_arrow_to_itself():
    net = fnn.Serial((fnn.Last(fnn.Serial((fnn.Embedding(5, 3), fnn.Rnn(4, all_states=True)))), fnn.Dense(2)))
    axes, shapes, names, lines = diagram(net, {"x": (7,), "length": ()})
    assert shapes == ["7\n×5", "7\n×3", "7\n×4", "4", "2"]
    assert names == ["input", "Embedding", "Rnn", "Last", "Dense"]
    assert lines == [15, 12, 4, 8]
    table, (w, *_) = net.init(KEY, {"x": (7,), "length": ()})[0]
    shown = [np.asarray(c.get_linewidths()) for c in collections(axes)]
    largest = 2 / max(abs(table).max(), abs(w).max(), abs(net.init(KEY, {"x": (7,), "length": ()})[1].w).max())
    np.testing.assert_allclose(shown[0], largest * abs(table.T.ravel()), rtol=1e-5)
    np.testing.assert_allclose(shown[1], largest * abs(w.ravel()), rtol=1e-5)
    assert [text.get_text() for text in axes.texts].count("") == 1, "the loop"


def test_several_inputs_stand_side_by_side_and_without_known_weights_there_is_no_scale():
    branches = fnn.Serial((fnn.Embedding(9, 2), fnn.Gru(3))), fnn.Dense(2)
    axes, shapes, names, lines = diagram(fnn.Parallel(branches, inputs=("b", "a")), {"a": (4,), "b": (2,)})
    assert shapes == ["6", "5"]
    assert names == ["a 4\nb 2", "Parallel"]
    assert lines == [30]
    assert axes.get_title() == ""
