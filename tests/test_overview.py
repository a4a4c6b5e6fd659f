"""The summary of a network: the shape of each layer's output, and its parameters, which are those that `init` makes."""

import numpy as np
import pytest
from helpers import key

import fnn
from fnn import errors, trees


def test_a_summary_shows_what_is_within_a_composition():
    net = fnn.Serial((fnn.Residual(fnn.mlp((2, 3))), fnn.Parallel((fnn.Identity(), fnn.Frozen(fnn.Dense(1))))))
    lines = fnn.summary(net, (3,)).splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["0", "Residual"],
        ["0.0.0", "Dense"],
        ["0.0.1", "Relu"],
        ["0.0.2", "Dense"],
        ["1", "Parallel"],
        ["1.0", "Identity"],
        ["1.1", "Frozen"],
        ["1.1.0", "Dense"],
    ]
    assert lines[-1].split() == ["total", "(4,)", "21", "84"]


def test_a_summary_shows_layers_shapes_parameters_and_bytes():
    net = fnn.Serial((fnn.Flatten(), fnn.mlp((300, 10)), fnn.Softmax()))
    lines = fnn.summary(net, (28, 28)).splitlines()
    assert [line.split() for line in lines] == [
        ["layer", "output", "parameters", "bytes"],
        ["0", "Flatten", "(784,)", "0", "0"],
        ["1.0", "Dense", "(300,)", "235,500", "942,000"],
        ["1.1", "Relu", "(300,)", "0", "0"],
        ["1.2", "Dense", "(10,)", "3,010", "12,040"],
        ["2", "Softmax", "(10,)", "0", "0"],
        ["total", "(10,)", "238,510", "954,040"],
    ]
    assert len({len(line) for line in lines}) == 1, "columns are aligned"


# By name: a network, the shape of an example, and the output and number of parameters in each row.
NETWORKS = {
    "images": (
        fnn.Serial(
            (fnn.Conv(6, (5, 3), padding="same"), fnn.MaxPool((2, 2)), fnn.Conv(8, (3, 3), 2, groups=2, bias=False),
             fnn.AvgPool((2, 2), 1), fnn.GlobalAvgPool(), fnn.Dense(2))
        ),
        (12, 12, 1),
        {"0 Conv": ((12, 12, 6), 96), "1 MaxPool": ((6, 6, 6), 0), "2 Conv": ((2, 2, 8), 216),
         "3 AvgPool": ((1, 1, 8), 0), "4 GlobalAvgPool": ((8,), 0), "5 Dense": ((2,), 18)},
    ),
    "symbols": (
        fnn.Serial((fnn.Embedding(10, 3), fnn.Lstm(4, True), fnn.Gru(3, True), fnn.Rnn(2), fnn.Dense(5))),
        (7,),
        {"0 Embedding": ((7, 3), 30), "1 Lstm": ((7, 4), 128), "2 Gru": ((7, 3), 75), "3 Rnn": ((2,), 12),
         "4 Dense": ((5,), 15)},
    ),
    "sequences of unequal length": (
        fnn.Serial((fnn.Last(fnn.Rnn(4, True)), fnn.Dense(1))),
        {"x": (7, 2), "length": ()},
        {"0 Last": ((4,), None), "0.0 Rnn": ((7, 4), 28), "1 Dense": ((1,), 5)},
    ),
    "symbols beside numbers": (
        fnn.Parallel((fnn.Serial((fnn.Embedding(10, 3), fnn.GlobalMaxPool())), fnn.Dense(2)), inputs=("a", "b")),
        {"a": (7,), "b": (4,)},
        {"Parallel": ((5,), None), "0.0 Embedding": ((7, 3), 30), "0.1 GlobalMaxPool": ((3,), 0),
         "1 Dense": ((2,), 10)},
    ),
    "one layer": (fnn.Conv(2, (3,)), (5, 1), {"Conv": ((3, 2), 8)}),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_summary_of_images_symbols_and_several_inputs_counts_what_init_makes(name):
    net, shape, rows = NETWORKS[name]
    params = net.init(key(), shape)
    size = sum(leaf.size for leaf in trees.leaves(params))
    head, *lines, total = fnn.summary(net, shape).splitlines()
    assert head.split() == ["layer", "output", "parameters", "bytes"]
    for line, (layer, (output, count)) in zip(lines, rows.items(), strict=True):
        shown = [str(output)] if count is None else [str(output), f"{count:,}", f"{4 * count:,}"]
        assert line.split() == [*layer.split(), *" ".join(shown).split()]
    assert total.split()[-2:] == [f"{size:,}", f"{4 * size:,}"]
    assert size == sum(count or 0 for _, count in rows.values())
    assert fnn.summary(net, shape, np.float64).splitlines()[-1].split()[-1] == f"{8 * size:,}"


def test_a_shape_that_does_not_fit_is_named():
    net, _, _ = NETWORKS["images"]
    with pytest.raises(errors.ShapeError, match=r"layers\[0\] Conv: expected input of .*\(H, W, C\).*got \(12, 12\)"):
        fnn.summary(net, (12, 12))
    with pytest.raises(errors.ShapeError, match=r"layers\[0\] Conv: expected one array, .*\{'x': \(N, 12\)\}"):
        fnn.summary(net, {"x": (12,)})
