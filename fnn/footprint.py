"""The memory of a training step as a table: what is there before it, and what it needs on top, before it is run."""

from typing import Any

import numpy as np

from . import backend, examples, gate, random, rules, trees
from .backpropagation import Problem, check_problem
from .errors import usage
from .layers import Layer
from .losses import Loss
from .optimizers import Sgd, prepare
from .overview import table
from .training import init_state, make_step

PARTS = "gradients", "kept"  # of temporary memory


@usage("fnn.memory(net, loss, (x, y))")
def memory(
    net: Layer, loss: Loss, batch: Any, *, optimizer: Any = None, rule: Any = None, dtype: Any = np.float32
) -> str:
    """Make a table of the memory that a training step takes, without running it.

    On JAX, a step is compiled for the shapes of the batch, and the compiler's plan is read. `temporary` is what is
    needed beyond arguments and results; `results` are the new parameters and states, whose room temporary arrays may
    have first. `gradients` and `kept`, what the layers keep for the backward pass, are not in the total: they are
    counted from shapes, each array once, and a compiler may store less. On NumPy, one example is passed through the
    network, and `temporary` is the gradients and all residuals and errors, as backpropagation has them.

    No parameters are made, so that on JAX a network may be larger than the memory. Only the shapes and dtypes of the
    batch count: `np.broadcast_to(np.float32(0), (4096, 784))` stands for a large x, and takes no memory.

    Args:
        net: the network.
        loss: the cost.
        batch: `(x, y)` or `(x, y, weights)` of one step.
        optimizer: the optimizer. Default: `Sgd`.
        rule: the rule. Default: `rules.Backprop()`.
        dtype: the dtype of the parameters. Default: float32.

    Returns:
        The table as a string, in bytes.

    >>> from fnn import Adam, SoftmaxCrossEntropy, mlp
    >>> x, y = np.zeros((32, 784), np.float32), np.zeros(32, np.int32)
    >>> print(memory(mlp((128, 10)), SoftmaxCrossEntropy(), (x, y), optimizer=Adam()).split("temporary")[0].rstrip())
    memory of a step      bytes
    parameters          407,080
    optimizer state     814,164
    rule state                0
    batch               100,480
    """
    rows = plan_of(net, loss, batch, optimizer, rule, dtype)
    lines = [(f"  {name}" if name in PARTS else name, f"{size:,}") for name, size in rows.items()]
    return table([("memory of a step", "bytes"), *lines])


def plan_of(net, loss, batch, optimizer=None, rule=None, dtype: Any = np.float32) -> dict[str, int]:
    """The rows of `memory`: bytes by name."""
    check_problem(net, loss)
    batch = tuple(examples.opened(batch, "batch"))
    n, input_shape = examples.size_of(batch[0]), examples.shape_of(batch[0])
    optimizer = Sgd(0.1) if optimizer is None else optimizer
    plan = _plan_of_numpy if backend.jax is None else _plan_of_jax
    return plan(net, loss, batch, n, input_shape, optimizer, rule, dtype)


def _plan_of_jax(net, loss, batch, n, input_shape, optimizer, rule, dtype):
    jax = backend.jax
    begin = lambda key: init_state(net, optimizer, key, input_shape, dtype, rule=rule)
    state = jax.eval_shape(begin, random.key(0, backend="jax"))
    of = lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype))
    batch = trees.map(of, batch)
    lowered = jax.jit(make_step(net, loss)).lower(state, batch[: 2 + (batch[2] is not None)])
    try:
        planned = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        # To choose the kernels of products, a GPU tries them on arrays of their size, which it may have no room for.
        planned = lowered.compile(compiler_options={"xla_gpu_autotune_level": 0}).memory_analysis()
    x = trees.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype if backend.is_floating(a.dtype) else a.dtype), batch[0])
    forward = jax.make_jaxpr(lambda params, x: net.forward(params, x)[1])(state.params, x).jaxpr
    kept = {id(v): v.aval for v in forward.outvars if v not in forward.invars}  # what is kept twice is there once
    results = planned.output_size_in_bytes - planned.alias_size_in_bytes
    states = state.params, state.opt_state, state.rule_state
    return _rows(states, batch, planned.temp_size_in_bytes, _bytes(list(kept.values())), results)


def _bytes(tree):
    """The size of all arrays of a tree; a key counts as its words."""
    size = lambda a: a.size * (8 if not isinstance(a.dtype, np.dtype) else a.dtype.itemsize)
    return sum(size(a) for a in trees.leaves(tree))


def _rows(states, batch, temporary, kept, results):
    names = "parameters", "optimizer state", "rule state", "batch"
    rows = {name: _bytes(tree) for name, tree in zip(names, (*states, batch), strict=True)}
    rows |= {"temporary": temporary, "gradients": _bytes(trees.learnt(states[0])), "kept": kept, "results": results}
    return rows | {"total": sum(size for name, size in rows.items() if name not in PARTS)}


def _plan_of_numpy(net, loss, batch, n, input_shape, optimizer, rule, dtype):
    params = gate.parameter_shapes(net, input_shape, np.dtype(dtype))
    optimizer, rule = prepare(optimizer, params), rules.base.prepare(rules.Backprop() if rule is None else rule, params)
    problem, key = Problem(net, loss, input_shape=input_shape), random.key(0, backend="numpy")
    states = params, optimizer.init(params), rules.base.first_state(rule, problem, params, key)

    def counted(x):
        """Bytes of one example: what the layers keep, and that together with the errors."""
        y, residuals = net.forward(params, x)
        deltas = net.propagate(params, residuals, y * 0, need_dx=False)[1]
        return _distinct(residuals, x), _distinct((residuals, deltas, y), x)

    kept, both = gate.on_zeros(counted, input_shape, dtype)
    return _rows(states, batch, _bytes(trees.learnt(params)) + n * both, n * kept, _bytes(states))


def _distinct(tree, x):
    """The size of the arrays, each counted once, without x itself."""
    owner = lambda a: a if a.base is None else owner(a.base)
    batched = [a for a in trees.leaves(tree, is_leaf=backend.is_unbatched) if isinstance(a, np.ndarray)]
    arrays = {id(owner(a)): owner(a) for a in batched}
    return sum(a.nbytes for a in arrays.values() if not any(a is other for other in trees.leaves(x)))
