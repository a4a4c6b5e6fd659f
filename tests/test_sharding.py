"""Runs on several devices are those on one; eight virtual devices need a process of their own (sharded.py)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import key

import fnn
from fnn import errors, sharding

NET = fnn.mlp((4, 3))


def run(*arguments):
    """sharded.py in a process of its own."""
    root = Path(fnn.__file__).parents[1]
    paths = os.pathsep.join([str(root), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(Path(__file__).with_name("sharded.py")), *arguments]
    found = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.thorough
def test_a_step_on_several_devices_is_that_on_one_and_moves_no_more_than_it_must(needs_jax):
    run()


@pytest.mark.thorough
def test_runs_of_every_kind_on_every_layout_are_the_run_on_one_device(needs_jax):
    run("all")


def test_the_layout_of_parameters_is_as_said(needs_jax):
    net = fnn.Serial(
        (fnn.Conv(4, (2,)), fnn.Tanh(), fnn.Flatten(), fnn.Dense(6, bias=False), fnn.LayerNorm(), fnn.Dense(5))
    )
    params, mesh = net.init(key("jax"), (5, 3)), sharding.mesh(1)
    specs = lambda how: [tuple(s.spec) for s in needs_jax.tree.leaves(sharding.layout(mesh, net, params, how))]
    none = [(), ()]
    assert specs("replicated") == 7 * [()]
    assert specs("columns") == [("model", None, None), ("model",), ("model", None), *none, ("model", None), ("model",)]
    assert specs("rows") == [(None, None, "model"), (), (None, "model"), *none, (None, "model"), ()]
    assert specs("alternating") == [("model", None, None), ("model",), (None, "model"), *none, *none]
    assert specs("full")[0] == ("data", None, None)
    assert [sharding._largest(shape, 2) for shape in ((10, 7), (7, 3))] == [["data", None], [None, None]]


def test_what_cannot_be_placed_is_refused(needs_jax):
    params, mesh = NET.init(key("jax"), (2,)), sharding.mesh(1)
    for wrong, kind, message in (
        (lambda: sharding.mesh(10_000), errors.ArgumentError, "mesh: expected at most .* devices, got 10000 × 1"),
        (lambda: sharding.mesh(0), errors.ArgumentError, "mesh: expected at most"),
        (
            lambda: sharding.layout(mesh, NET, params, "diagonal"),
            errors.ArgumentError,
            "how: expected one of 'replicated'",
        ),
        (lambda: sharding.layout(None, NET, params), errors.KindError, "mesh: expected a mesh with axes"),
        (lambda: sharding.place_data("data", np.zeros(3)), errors.KindError, "mesh: expected a mesh with axes"),
    ):
        with pytest.raises(kind, match=message):
            wrong()


def test_numpy_alone_has_no_devices():
    if fnn.backend.jax is None:
        with pytest.raises(errors.KindError, match=r"fnn\.sharding needs JAX"):
            sharding.mesh()
