"""Weights under PyTorch's names: `torch.nn.Sequential` of the same layers computes the same, there and back."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import BACKENDS, Gain, key, moved, on

import fnn
from fnn import checkpoints, errors, trees
from fnn.checkpoints.torch_names import NAMES, to_torch

pytest.importorskip("safetensors")
D, C, S = fnn.Dense, fnn.Conv, fnn.Serial


class Case(NamedTuple):
    """The same network here and in PyTorch, made only where that is installed, and the shape of an example.

    `channels` is how many axes PyTorch has after the channels: 0 where both have the same order.
    """

    net: Any
    module: Any
    shape: tuple
    channels: int = 0


IMAGES = S((C(4, (3, 2)), fnn.PRelu(), fnn.MaxPool((2, 2)), fnn.Flatten(), fnn.Relu(), fnn.LayerNorm(), D(3)))
CASES = {
    "mlp": Case(
        S(
            (
                D(5),
                fnn.Gelu(),
                fnn.Dropout(0.1),
                S((D(4, bias=False), fnn.PRelu(per_unit=True))),
                fnn.Frozen(fnn.Remat(D(2))),
            )
        ),
        lambda n: n.Sequential(
            n.Linear(3, 5),
            n.GELU(),
            n.Dropout(0.1),
            n.Sequential(n.Linear(5, 4, bias=False), n.PReLU(4)),
            n.Linear(4, 2),
        ),
        (3,),
    ),
    "a_layer": Case(D(2), lambda n: n.Linear(3, 2), (3,)),
    "images": Case(
        IMAGES,
        lambda n: n.Sequential(
            n.Conv2d(2, 4, (3, 2)), n.PReLU(), n.MaxPool2d(2), n.Flatten(), n.ReLU(), n.LayerNorm(24), n.Linear(24, 3)
        ),
        (6, 7, 2),
        2,
    ),
    "flattened_at_once": Case(
        S((fnn.Flatten(), fnn.PRelu(per_unit=True), fnn.RMSNorm(), D(3))),
        lambda n: n.Sequential(n.Flatten(), n.PReLU(24), n.RMSNorm(24, eps=1e-6), n.Linear(24, 3)),
        (3, 4, 2),
        2,
    ),
    "grouped": Case(
        S((C(4, (3,), 2, 1, 2, 2), fnn.Glu(), fnn.GlobalAvgPool(), D(2))),
        lambda n: n.Sequential(
            n.Conv1d(2, 4, 3, 2, 1, 2, 2), n.GLU(1), n.Sequential(n.AdaptiveAvgPool1d(1), n.Flatten()), n.Linear(2, 2)
        ),
        (9, 2),
        1,
    ),
    "volumes": Case(
        S((C(3, (2, 1, 2)), fnn.Flatten(), D(2))),
        lambda n: n.Sequential(n.Conv3d(2, 3, (2, 1, 2)), n.Flatten(), n.Linear(54, 2)),
        (3, 3, 4, 2),
        3,
    ),
    "positions": Case(
        S((D(4), fnn.LayerNorm(), fnn.Flatten(), D(2))),
        lambda n: n.Sequential(n.Linear(3, 4), n.LayerNorm(4), n.Flatten(), n.Linear(20, 2)),
        (5, 3),
    ),
    "symbols": Case(
        S((fnn.Embedding(7, 3), fnn.Flatten(), D(2))),
        lambda n: n.Sequential(n.Embedding(7, 3), n.Flatten(), n.Linear(12, 2)),
        (4,),
    ),
    **{
        kind.__name__: Case(
            kind(4, all_states=True),
            lambda n, kind=kind: getattr(n, kind.__name__.upper())(3, 4, batch_first=True),
            (5, 3),
        )
        for kind in (fnn.Rnn, fnn.Gru, fnn.Lstm)
    },
}


def examples(case):
    rng = np.random.default_rng(0)
    return rng.integers(0, 7, (6, *case.shape)) if "Embedding" in repr(case.net) else rng.normal(size=(6, *case.shape))


def outputs(module, x, case):
    """What PyTorch's module computes in inference, with the channels last."""
    import torch

    x = torch.tensor(x)
    with torch.no_grad():
        y = module.eval()(x.movedim(-1, 1) if case.channels else x)
    y = y[0] if isinstance(y, tuple) else y
    return (y.movedim(1, -1) if y.ndim > 2 and case.channels else y).numpy()


@pytest.mark.parametrize("name", CASES)
def test_torch_loads_the_file_and_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    case = CASES[name]
    params, x = moved(case.net, case.shape), examples(case)
    options = {"names": "torch", "net": case.net, "input_shape": case.shape}
    checkpoints.save_safetensors(tmp_path / "net", params, **options)
    module = case.module(torch.nn).double()
    module.load_state_dict(load_file(tmp_path / "net"), strict=True)
    np.testing.assert_allclose(outputs(module, x, case), case.net.apply(params, x), 1e-10, 1e-12)
    found = checkpoints.load_safetensors(tmp_path / "net", params, backend="numpy", **options)
    assert trees.alike(found, params)
    assert all(map(np.array_equal, trees.leaves(found), trees.leaves(params)))


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_torch_is_loaded_and_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    case, x = CASES[name], examples(CASES[name])
    torch.manual_seed(0)
    module = case.module(torch.nn).double()
    save_file(module.state_dict(), tmp_path / "net")
    like = case.net.init(key(), case.shape, np.float64)
    options = {"names": "torch", "net": case.net, "input_shape": case.shape}
    params = checkpoints.load_safetensors(tmp_path / "net", like, backend="numpy", **options)
    np.testing.assert_allclose(case.net.apply(params, x), outputs(module, x, case), 1e-10, 1e-12)


@pytest.mark.numpy_alone
def test_every_layer_that_has_weights_in_torch_too_has_a_case():
    inside = {type(layer) for case in CASES.values() for _, layer in fnn.composition.walk(case.net)}
    assert set(NAMES) <= inside


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_way_there_and_back_is_exact_on_either_backend(backend, tmp_path):
    params = on(backend, moved(IMAGES, (6, 7, 2), np.float32))
    options = {"names": "torch", "net": IMAGES, "input_shape": (6, 7, 2)}
    checkpoints.save_safetensors(tmp_path / "net", params, metadata={"epoch": "3"}, **options)
    found = checkpoints.load_safetensors(tmp_path / "net", params, backend=backend, **options)
    assert type(found) is type(params)
    assert [type(leaf) for leaf in trees.leaves(found)] == [type(leaf) for leaf in trees.leaves(params)]
    assert all(map(np.array_equal, trees.leaves(found), trees.leaves(params)))
    from safetensors import safe_open

    with safe_open(tmp_path / "net", "numpy") as file:
        assert file.metadata()["format"] == "pt"
        assert file.metadata()["epoch"] == "3"
        assert set(file.keys()) == {f"{i}.{name}" for i in (0, 5, 6) for name in ("weight", "bias")} | {"1.weight"}


WORDS = fnn.Embedding(7, 4)


@pytest.mark.numpy_alone
@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (S((D(3), fnn.Residual(D(3)))), (3,), "1 Residual: expected a layer that torch.nn has"),
        (S((S((fnn.Scale(0.5),)), D(3))), (3,), "0.0 Scale: expected a layer that torch.nn has"),
        (S((fnn.Frozen(fnn.Standardize()), D(3))), (3,), "0 Standardize: expected a layer that torch.nn has"),
        (S((D(3), fnn.ArcTan())), (3,), "1 ArcTan: expected a layer that torch.nn has"),
        (S((D(3), fnn.Swish(2.0))), (3,), "1 Swish: .* with no such parameter"),
        (S((D(3), fnn.Softmax(2.0))), (3,), "1 Softmax: .* with no such parameter"),
        (S((D(3), Gain())), (3,), "1 Gain: expected a layer that torch.nn has"),
        (S((C(3, (2, 2)), D(3))), (4, 4, 1), "1 Dense: expected an input that PyTorch has with the channels last"),
        (S((C(3, (2,)), fnn.Lstm(3))), (4, 1), "1 Lstm: expected an input that PyTorch has with the channels last"),
        (S((WORDS, C(3, (2,)))), (4,), "1 Conv: expected an input that PyTorch has with the channels first"),
        (D(3), (4, 4, 2), "Dense: expected an input that PyTorch has with the channels last"),
        (S((C(3, (2, 2)), fnn.PRelu(per_unit=True))), (4, 4, 1), "1 PRelu: .* not for each entry"),
        (S((fnn.Flatten(), fnn.Glu())), (4, 4, 2), "1 Glu: .* its halves are others"),
        (
            fnn.Parallel((D(2), D(3)), inputs=("a", "b")),
            {"a": (3,), "b": (2,)},
            "Parallel: expected a layer that torch.nn",
        ),
        (
            S((fnn.Last(fnn.Lstm(3, all_states=True)),)),
            {"x": (4, 2), "length": ()},
            "0 Last: expected a layer that torch",
        ),
    ],
    ids=repr,
)
def test_what_torch_has_not_is_refused_before_anything_is_written(net, shape, message, tmp_path):
    params = net.init(key(), shape)
    options = {"names": "torch", "net": net, "input_shape": shape}
    with pytest.raises(errors.KindError, match=message):
        checkpoints.save_safetensors(tmp_path / "net", params, **options)
    with pytest.raises(errors.KindError, match=message):
        checkpoints.load_safetensors(tmp_path / "net", params, **options)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_refused(tmp_path):
    net, path = D(2), tmp_path / "net"
    params = net.init(key(), (3,))
    for options in ({"names": "keras"}, {"net": net}, {"names": "torch"}, {"names": "torch", "net": net}):
        with pytest.raises(errors.ArgumentError, match="names"):
            checkpoints.save_safetensors(path, params, **options)
        with pytest.raises(errors.ArgumentError, match="names"):
            checkpoints.load_safetensors(path, params, **options)
    options = {"names": "torch", "net": net}
    with pytest.raises(errors.ShapeError, match="params"):
        checkpoints.save_safetensors(path, params, input_shape=(4,), **options)
    assert list(tmp_path.iterdir()) == []
    checkpoints.save_safetensors(path, params, input_shape=(3,), **options)
    with pytest.raises(errors.ShapeError, match="params"):
        checkpoints.load_safetensors(path, params, input_shape=(4,), **options)
    wider = net.init(key(), (5,))
    with pytest.raises(errors.ShapeError, match=r"weight: \(2, 3\) float32 in the file, \(2, 5\) float32 expected"):
        checkpoints.load_safetensors(path, wider, input_shape=(5,), **options)


@pytest.mark.numpy_alone
def test_torchs_two_biases_become_one_and_ours_the_first():
    arrays = to_torch(
        fnn.Gru(2), fnn.GruParams(np.ones((6, 3)), np.ones((6, 2)), np.arange(6.0), np.array([7.0, 8])), (4, 3)
    )
    assert arrays["bias_ih_l0"].tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays["bias_hh_l0"].tolist() == [0, 0, 0, 0, 7, 8]
