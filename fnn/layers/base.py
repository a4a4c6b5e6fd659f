"""The contract that every layer keeps.

A layer is a frozen dataclass; its methods are pure functions of parameters and arrays. Letters: N examples (always the
leading axis), T positions, I inputs, O outputs. With δ = ∂L/∂y, the error at a layer's output, shaped as y:

    forward     y = f(x; θ)           and the residuals, which the backward pass needs
    backward    dx = δ ∂y/∂x          carries each example's error to the layer below
    factors     gₙ = δₙ ∂yₙ/∂θ        the gradient of each example, as a product where it is one: see `fnn.factors`
    gradient    dθ = Σₙ gₙ            summed over the examples, linear in δ
    tangent     dy = ∂y/∂x dx + ∂y/∂θ dθ        forward mode: the transpose of backward and gradient
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from .. import backend, factors, gate, trees
from ..backend import is_floating, is_unbatched
from ..devices import on_any_axes
from ..errors import KindError, ShapeError, shape, usage
from ..static import Static

Array = Any  # of jax.numpy or numpy
Params = Any  # a tree of arrays


@dataclass(frozen=True)
class Layer(Static):
    """Base class of all layers.

    A layer of your own must define `forward` and `backward`. If it has parameters, it must also define `init` and
    either `factors` or `gradient`, each of which can be derived from the other; if it changes the shape, also
    `output_shape`. Shapes exclude the batch axis, arrays include it. Every leaf of residuals, deltas and factors has
    the examples along its first axis, except leaves marked `fnn.backend.Unbatched`.

    >>> @dataclass(frozen=True)
    ... class Square(Layer):
    ...     def forward(self, params, x, key=None):
    ...         return x**2, x
    ...
    ...     def backward(self, params, x, dy):
    ...         return dy * 2 * x
    >>> Square().apply((), np.array([[1.0, 3.0]], np.float32))
    array([[1., 9.]], dtype=float32)
    """

    draws: ClassVar[bool] = True  # whether forward may use its key; keys are derived only for layers that do

    def __init_subclass__(cls, **kwargs):
        """Keep inheritance consistent: a formula is not inherited if one that it belongs to was overridden."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "factors" in own and "gradient" not in own:
            cls.gradient = Layer.gradient
        elif "gradient" in own and "factors" not in own:
            cls.factors = Layer.factors
        elif "factors" not in own and ("forward" in own or "backward" in own) and _learns(cls):
            raise KindError(
                f"{cls.__name__}: expected `factors` or `gradient` beside its own formula, since those of "
                f"{cls.__base__.__name__} belong to another one"  # type: ignore[union-attr]
            )
        if "outer_factors" not in own and any(name in own for name in ("factors", "gradient")):
            cls.outer_factors = Layer.outer_factors
        if "tangent" not in own and any(name in own for name in ("forward", "backward", "propagate")):
            cls.tangent = Layer.tangent

    def output_shape(self, input_shape) -> tuple:
        """The shape of the output for an input of this shape; by default the same."""
        return shape("input_shape", input_shape)

    def check(self, x, /) -> None:
        """Raise if data x cannot be meant for this layer, the first of a network; by default they can.

        Shapes have been checked before, by `output_shape`. Values may be read only where `fnn.checks.known(x)`.
        """

    def init(self, key, input_shape, /, dtype: Any = np.float32) -> Params:
        """New parameters: a tree of arrays, `()` if the layer has none. On JAX, `init_state` compiles this method.

        `jax.eval_shape(lambda key: net.init(key, input_shape), key)` gives their shapes and dtypes without computing
        them.
        """
        return ()

    def forward(self, params, x, /, key=None) -> tuple[Array, Any]:
        """`(y, residuals)`; with a key the layer is in training mode (dropout is active), without one in inference."""
        raise NotImplementedError

    def backward(self, params, residuals, dy, /) -> Array:
        """dx from dy = δ: linear in dy, and independent for each example."""
        raise NotImplementedError

    def factors(self, params, residuals, delta, /) -> Any:
        """The gradient of each example, nested as `params`: at each leaf `Outer`, `Rows`, an array (N, ...) or None.

        By default it calls `gradient` on one example at a time.
        """
        if not trees.leaves(params):
            return ()
        if type(self).gradient is Layer.gradient:
            raise KindError(
                f"{type(self).__name__}: expected a method `factors` or `gradient`, since the layer has parameters"
            )

        n = len(trees.leaves(delta)[0])
        for leaf in trees.leaves(residuals, is_leaf=is_unbatched):
            if not is_unbatched(leaf) and np.shape(leaf)[:1] != (n,):
                raise ShapeError(
                    f"{type(self).__name__}: expected residuals with the {n} examples along their first axis, "
                    f"got shape {np.shape(leaf)}; mark others as fnn.backend.Unbatched(...)"
                )

        def of_one(residuals, delta):
            one = trees.map(lambda a: a if is_unbatched(a) else a[None], (residuals, delta), is_leaf=is_unbatched)
            return self.gradient(params, *one)

        return backend.vmap(of_one)(residuals, delta)

    def outer_factors(self, params, residuals, delta, /) -> Any:
        """`factors` with an `Outer` wherever the gradient is a sum of outer products, even if it takes more memory.

        Kronecker factors need it. By default it is `factors`; a layer overrides it whose `factors` may be smaller.
        """
        return self.factors(params, residuals, delta)

    def gradient(self, params, residuals, delta, /) -> Params:
        """The gradient, nested as `params`: a sum over the examples, linear in delta; by default from `factors`."""
        if isinstance(params, tuple) and not params:
            return ()
        return factors.total(params, self.factors(params, residuals, delta))

    def propagate(self, params, residuals, dy, /, need_dx=True) -> tuple[Array | None, Any]:
        """`(dx, delta)`: the backward pass, and the error where the parameters act (dy, unless they act inside).

        With `need_dx=False`, dx is None. A composition nests the deltas of its layers as it nests their parameters.
        """
        return (self.backward(params, residuals, dy) if need_dx else None), dy

    def tangent(self, params, residuals, dparams, dx, /) -> Array | None:
        """dy along a direction: the change of the output when x moves by dx and the parameters by dparams.

        dx=None and None in dparams mean zero; the result is None if nothing moves. By default it is the transpose of
        `dy -> (dx, gradient)` by `jax.linear_transpose`, which needs JAX. A layer with integer input must define its
        own.
        """
        return transposed(self, params, residuals, dparams, dx)

    @on_any_axes
    @usage("net.apply(params, x)")
    def apply(self, params, x, key=None) -> Array:
        """Apply the layer or network to x (N, ...).

        Args:
            params: the parameters.
            x: the inputs (N, ...), converted to the backend of the parameters, and to their dtype if floating.
            key: a random key for training mode (dropout is active). Default: None, inference mode.

        Returns:
            The output (N, ...).

        Raises:
            ShapeError: if the parameters or x do not fit the network.

        >>> from fnn import Scale
        >>> Scale(2.0).apply((), [[1.0, 3.0]])
        array([[2., 6.]])
        """
        params, x = gate.inputs(self, params, x)
        return self.forward(params, x, gate.key_for(key, x))[0]

    def __call__(self, *args, **kwargs) -> NoReturn:
        """Layers are not called: their parameters are an argument of `apply`."""
        raise KindError(f"{type(self).__name__} cannot be called; write net.apply(params, x)")


def _learns(cls):
    """Whether a parent class defines the gradient of its own parameters."""
    parents = cls.__mro__[1 : cls.__mro__.index(Layer)]
    return any(name in vars(parent) for parent in parents for name in ("factors", "gradient")) and not any(
        vars(parent).get("is_composition") for parent in parents
    )


def symmetric(self, params, residuals, dparams, dx):
    """The tangent of a layer without parameters whose Jacobian is symmetric: its backward pass."""
    return None if dx is None else self.backward(params, residuals, dx)


def added(*terms):
    """The sum of the terms of a tangent; None means zero."""
    known = [term for term in terms if term is not None]
    return sum(known[1:], known[0]) if known else None


def transposed(layer, params, residuals, dparams, dx):
    """The tangent of any layer, as the transpose of its backward pass."""
    name = type(layer).__name__
    moving = [leaf for leaf in trees.leaves(dparams) if leaf is not None]
    if dx is None and not moving:
        return None
    jax = backend.need_jax(f"{name}.tangent, unless the layer defines it,")
    if not backend.is_jax(next(iter(trees.leaves((params, residuals, dx))))):
        raise KindError(f"{name}.tangent: expected arrays on JAX, since the layer does not define its own tangent")
    input_shape = _input_of(layer, params, residuals) if dx is None else dx
    dy = jax.eval_shape(lambda x: layer.forward(params, x)[0], input_shape)

    def back(dy):
        below, delta = layer.propagate(params, residuals, dy, dx is not None)
        return _floating(below), layer.gradient(params, residuals, delta)

    below, grads = jax.eval_shape(back, dy)
    direction = [d.astype(b.dtype) for d, b in zip(_floating(dx), below, strict=True)], filled(dparams, grads)
    try:
        return jax.linear_transpose(back, dy)(direction)[0]
    except Exception as error:
        raise KindError(f"{name}.backward: expected a function that is linear in dy, without custom_vjp") from error


def _floating(dx):
    """The arrays of dx that are floating: integers have no error."""
    return [] if dx is None else [a for a in trees.leaves(dx) if is_floating(a.dtype)]


def filled(dparams, like):
    """The direction with zeros in place of None; None at any node stands for everything below it."""
    xp = backend.jnp
    if dparams is None or not isinstance(like, tuple | list | dict):
        zero = lambda leaf: xp.zeros(leaf.shape, leaf.dtype)
        return trees.map(zero, like) if dparams is None else dparams
    if isinstance(like, dict):
        return {key: filled(dparams[key], like[key]) for key in like}
    inner = [filled(d, k) for d, k in zip(dparams, like, strict=True)]
    return type(like)(*inner) if hasattr(like, "_fields") else type(like)(inner)


def _input_of(layer, params, residuals):
    """The input's shape and dtype, from the residuals: those of the leaf for which forward makes such residuals."""
    jax, outline = backend.jax, lambda tree: [(a.shape, a.dtype) for a in trees.leaves(tree)]
    for leaf in trees.leaves(residuals):
        x = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        try:
            if outline(jax.eval_shape(lambda x: layer.forward(params, x)[1], x)) == outline(residuals):
                return x
        except (TypeError, ValueError):
            continue
    raise KindError(
        f"{type(layer).__name__}.tangent: expected dx as an array of zeros, got None, which leaves the output's shape "
        "unknown"
    )
