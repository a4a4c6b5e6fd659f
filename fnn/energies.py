"""Networks that are more than one pass through their layers: `Hopfield` settles, `Goodness` tries each class.

Both are layers like others, with a backward pass of their own, so that everything that trains, evaluates and measures
networks takes them. `fnn.rules` has the rules of learning that they were invented for.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from . import backend, random
from .backend import at_least_float32, cast, floating, namespace
from .composition import Composition, Kept, Recorder, check_layers, located
from .errors import KindError, ShapeError, shape, usage
from .factors import made
from .layers import Conv, Dense, Layer
from .layers.activations import Elementwise
from .layers.base import added
from .numerics import root
from .outer import Outer
from .static import Interval


class Link(NamedTuple):
    """A linear map and the activations after it: the map, its place, and the place where they end."""

    layer: Layer
    at: int
    end: int


@dataclass(frozen=True)
class Chain(Composition):
    """Base of networks of linear maps, each with activations after it."""

    layers: tuple[Layer, ...]
    maps: ClassVar[tuple] = (Dense,)

    def __post_init__(self):
        super().__post_init__()
        check_layers("layers", self.layers)
        plain = [_plain(layer) for layer in self.layers]
        names = " or ".join(cls.__name__ for cls in self.maps)
        if not plain or not isinstance(plain[0], self.maps):
            raise KindError(f"{type(self).__name__}: expected {names} as the first layer, got {plain[:1]}")
        for i, layer in enumerate(plain):
            if not isinstance(layer, (*self.maps, Elementwise)):
                raise KindError(f"layers[{i}]: expected {names}, or an activation of single entries, got {layer}")

    @property
    def parts(self):
        return self.layers

    @property
    def links(self) -> list[Link]:
        """The linear maps with what follows them."""
        plain = [_plain(layer) for layer in self.layers]
        begins = [i for i, layer in enumerate(plain) if isinstance(layer, self.maps)]
        return [Link(plain[a], a, b) for a, b in zip(begins, [*begins[1:], len(plain)], strict=True)]

    def shapes(self, input_shape) -> list:
        """The shapes from the input of the first layer, through each."""
        shapes = [shape("input_shape", input_shape)]
        for i, layer in enumerate(self.layers):
            shapes.append(located("layers", self.layers, i, layer.output_shape, shapes[-1]))
        return shapes

    def init(self, key, input_shape, dtype: Any = np.float32):
        key, inputs = random.check_key(key), self.shapes(input_shape)
        return tuple(layer.init(random.fold_in(key, i), inputs[i], dtype) for i, layer in enumerate(self.layers))

    def activated(self, params, link, z):
        """`(a, residuals)` of the activations of a link."""
        kept = []
        for i in range(link.at + 1, link.end):
            z, own = self.layers[i].forward(params[i], z)
            kept.append(own)
        return z, kept

    def back(self, params, residuals, link, da):
        """`(dz, deltas)` of the activations of a link."""
        deltas = []
        for i in reversed(range(link.at + 1, link.end)):
            deltas.insert(0, da)
            da = _plain(self.layers[i]).backward(params[i], residuals[i], da)
        return da, deltas


def _plain(layer):
    """The layer itself, where a tape is recorded."""
    return layer.layer if isinstance(layer, Recorder) else layer


@usage("fnn.Hopfield((fnn.Dense(64), fnn.Tanh(), fnn.Dense(10), fnn.Tanh()), steps=20)")
@dataclass(frozen=True)
class Hopfield(Chain):
    """A network that settles: each layer is driven by the one below and, by the same weights, by the one above.

        E(s) = Σₖ (Γₖ(sₖ) − sₖ · zₖ(sₖ₋₁)),  Γₖ' = σₖ⁻¹        zₖ(s) = s Wₖᵀ + bₖ        s₀ = x,  y = s_K
        sₖ ← σₖ(uₖ)        uₖ = zₖ(sₖ₋₁) + sₖ₊₁ Wₖ₊₁             a sweep: k = 1 … K, each with the newest others

        eₖ ← (δₖ + eₖ₊₁ Wₖ₊₁ + eₖ₋₁ Wₖᵀ) ⊙ σₖ'(uₖ)          δ_K = ∂L/∂y, other δₖ = 0        dx = e₁ W₁
        dWₖ = Σₙ eₖ sₖ₋₁ᵀ + Σₙ sₖ eₖ₋₁ᵀ        dbₖ = Σₙ eₖ             the second sum for k > 1 only

    A continuous Hopfield network in layers. Each step of a sweep minimizes the energy E over one layer, so E never
    rises, and bounded activations that rise everywhere give it a minimum; the first sweep, without what is above, is an
    ordinary forward pass. The backward pass is that of the minimum that the sweeps approach, by as many sweeps.

    Args:
        layers: `Dense` or `Conv` layers, each with its activations after it.
        steps: the number of sweeps, at least 1. Default: 20.

    Source: J. Hopfield, "Neurons with graded response have collective computational properties like those of two-state
    neurons" (1984); the backward pass is that of L. Almeida (1987) and F. Pineda (1987).

    >>> from fnn import HardSigmoid, mlp
    >>> net = Hopfield((*mlp((5, 2), HardSigmoid()).layers, HardSigmoid()))
    >>> net.output_shape((3,))
    (2,)
    """

    steps: Annotated[int, Interval("[1, ∞)")] = field(default=20, kw_only=True)
    maps: ClassVar[tuple] = (Dense, Conv)

    def output_shape(self, input_shape):
        return self.shapes(input_shape)[-1]

    def forward(self, params, x, key=None):
        x = floating(x, params[0].w.dtype)
        values = self.settled(params, x)
        residuals = []
        for k, link in enumerate(self.links):
            z, kept = self.layers[link.at].forward(params[link.at], values[k - 1] if k else x)
            _, activations = self.activated(params, link, added(z, self._from_above(params, k, values)))
            residuals += [kept, *activations]
        return values[-1], Kept(tuple(values), tuple(residuals))

    def settled(self, params, x, values=None, force=None, steps=None) -> list:
        """The values of each layer after sweeps, from others or from a forward pass.

        Args:
            params: the parameters.
            x: the input.
            values: what to begin from, for each linear map. Default: a forward pass.
            force: a function of the last values, subtracted from what drives them. Default: none.
            steps: the number of sweeps. Default: `self.steps`.
        """
        first, links = self.links[0], self.links
        drive = first.layer.forward(params[first.at], x)[0]

        def sweep(values, above=True):
            values = list(values)
            for k, link in enumerate(links):
                z = link.layer.forward(params[link.at], values[k - 1])[0] if k else drive
                up = self._from_above(params, k, values) if above else None
                pull = None if force is None or k + 1 < len(links) else -force(values[k])
                a = added(z, up, pull)
                for i in range(link.at + 1, link.end):
                    a = _plain(self.layers[i]).forward(params[i], a)[0]
                values[k] = a
            return values

        values = sweep([None] * len(links), above=False) if values is None else list(values)
        return backend.scan(lambda values, _: (sweep(values), ()), values, None, steps or self.steps)[0]

    def _from_above(self, params, k, values) -> Any:
        """sₖ₊₁ Wₖ₊₁, or None for the last layer; what a linear map keeps is its input."""
        if k + 1 == len(self.links):
            return None
        above = self.links[k + 1]
        return above.layer.backward(params[above.at], values[k], values[k + 1])

    def propagate(self, params, residuals, dy, need_dx=True):
        values, inner = residuals
        links = self.links

        def total(errors, k):
            """δₖ + eₖ₊₁ Wₖ₊₁ + eₖ₋₁ Wₖᵀ."""
            at = links[k].at
            up = self._from_above(params, k, [*values[: k + 1], *errors[k + 1 :]])
            down = links[k].layer.tangent(params[at], inner[at], None, errors[k - 1]) if k else None
            return added(dy if k + 1 == len(links) else None, up, down)

        def sweep(errors, _):
            errors = list(errors)
            for k in reversed(range(len(links))):
                errors[k] = self.back(params, inner, links[k], total(errors, k))[0]
            return errors, ()

        errors = [namespace(dy).zeros(v.shape, dy.dtype) for v in values]
        errors, _ = backend.scan(sweep, errors, None, self.steps)
        deltas = []
        for k, link in enumerate(links):
            deltas += [errors[k], *self.back(params, inner, link, total(errors, k))[1]]
        return (links[0].layer.backward(params[0], inner[0], errors[0]) if need_dx else None), tuple(deltas)

    def factors(self, params, residuals, delta):
        values, inner = residuals
        result: list = [()] * len(self.layers)
        for k, (layer, at, _) in enumerate(self.links):
            result[at] = layer.factors(params[at], inner[at], delta[at])
            if k:
                below = delta[self.links[k - 1].at]
                again = layer.factors(params[at], below, values[k])
                result[at] = result[at]._replace(w=_both(result[at].w, again.w))
        return tuple(result)

    def outer_factors(self, params, residuals, delta):
        """Gradients, no products: weights act both ways, so a bias is not what the weight of an input of 1 would be."""
        return made(params, self.factors(params, residuals, delta))

    def tangent(self, params, residuals, dparams, dx):
        values, inner = residuals
        links = self.links
        ways: Any = (None,) * len(self.layers) if dparams is None else dparams
        drives = []
        for k, (layer, at, _) in enumerate(links):
            dw = None if k + 1 == len(links) or ways[links[k + 1].at] is None else ways[links[k + 1].at].w
            up = None if dw is None else self._from_above({links[k + 1].at: _with(params, links[k + 1], dw)}, k, values)
            drives.append(added(layer.tangent(params[at], inner[at], ways[at], None if k else dx), up))
        if all(drive is None for drive in drives):
            return None

        def sweep(moved, _):
            moved = list(moved)
            for k, (layer, at, _) in enumerate(links):
                below = layer.tangent(params[at], inner[at], None, moved[k - 1]) if k else None
                up = self._from_above(params, k, [*values[: k + 1], *moved[k + 1 :]])
                step = added(drives[k], below, up)
                step = namespace(*values).zeros_like(values[k]) if step is None else step
                for i in range(at + 1, links[k].end):
                    step = self.layers[i].tangent(params[i], inner[i], None, step)
                moved[k] = step
            return moved, ()

        return backend.scan(sweep, [0 * v for v in values], None, self.steps)[0][-1]


def _with(params, link, dw):
    return params[link.at]._replace(w=dw)


def _both(f, g):
    """The factors of a sum of two gradients: those of the positions of both."""
    if not isinstance(f, Outer):
        return f + g
    places = lambda a, b: namespace(a, b).concatenate([v.reshape(len(v), -1, v.shape[-1]) for v in (a, b)], axis=1)
    return Outer(places(f.delta, g.delta), places(f.a, g.a))


@usage("fnn.Goodness((fnn.Dense(64), fnn.Relu(), fnn.Dense(64), fnn.Relu()), classes=10)")
@dataclass(frozen=True)
class Goodness(Chain):
    """A network that is shown each class beside the input, and prefers the one that excites it most.

        h₀ = [x, one-hot c]        aₖ = fₖ(ĥₖ₋₁)        ĥ = h / √(mean h² + ε)        y_c = Σ_{k>1} mean aₖ²
        daₖ = (2 aₖ δ_c / Kₖ)_{k>1} + r P(δ ĥₖ)        r = 1 / √(mean aₖ² + ε)        P(δ) = δ − ĥ mean(δ ĥ)
        x (N, I)   h (N, C, I + C)   a (N, C, Kₖ)   y (N, C)   δ (N, C)

    fₖ are stages, a `Dense` layer with the activations after it, which see only the direction of what is below, not its
    length. The first stage counts only if it is the only one. The outputs are scores for `SoftmaxCrossEntropy`.

    Args:
        layers: `Dense` layers, each with its activations after it.
        classes: C, at least 2. Default: 10.

    Source: G. Hinton, "The forward-forward algorithm: some preliminary investigations" (2022), §3.3; the label is put
    beside the input instead of over its first entries, and goodness is a mean over the units.

    >>> from fnn import Relu
    >>> Goodness((Dense(8), Relu(), Dense(8), Relu()), classes=3).output_shape((4,))
    (3,)
    """

    classes: Annotated[int, Interval("[2, ∞)")] = field(default=10, kw_only=True)
    EPS: ClassVar[float] = 1e-6

    def shapes(self, input_shape):
        if len(shape("input_shape", input_shape)) != 1:
            raise ShapeError(f"Goodness: expected input of shape (I,), got {input_shape}; use fnn.Flatten() before it")
        return super().shapes((input_shape[0] + self.classes,))

    def output_shape(self, input_shape):
        self.shapes(input_shape)
        return (self.classes,)

    def beside(self, x, labels):
        """Inputs (N, I) and labels (N, T) as (N, T, I + C): each input with each of its labels beside it."""
        xp = namespace(x, labels)
        hot = (labels[..., None] == xp.arange(self.classes)).astype(x.dtype)
        return xp.concatenate([xp.broadcast_to(x[:, None], (*labels.shape, x.shape[-1])), hot], axis=-1)

    def activities(self, params, x, labels) -> tuple[list, list, list]:
        """`(a, ĥ, residuals)`: the output and the input of each stage, and the residuals of each layer."""
        h, outputs, inputs, residuals = self.beside(x, labels), [], [], []
        for link in self.links:
            inputs.append(h / self._length(h))
            z, kept = self.layers[link.at].forward(params[link.at], inputs[-1])
            h, activations = self.activated(params, link, z)
            outputs.append(h)
            residuals += [kept, *activations]
        return outputs, inputs, residuals

    def _length(self, h):
        wide = cast(h, at_least_float32(h.dtype))
        r = (wide * wide).mean(axis=-1, keepdims=True) + self.EPS
        return cast(r / root(r), h.dtype)  # √r; where r overflows NaN, and not ∞, which would make every input 0

    def counts(self, k):
        """Whether the score of a class counts this stage."""
        return k > 0 or len(self.links) == 1

    def forward(self, params, x, key=None):
        x = floating(x, params[0].w.dtype)
        xp = namespace(x)
        labels = xp.broadcast_to(xp.arange(self.classes), (len(x), self.classes))
        outputs, inputs, residuals = self.activities(params, x, labels)
        y = sum((a * a).mean(axis=-1) for k, a in enumerate(outputs) if self.counts(k))
        return y, Kept((self._length(self.beside(x, labels)), tuple(outputs), tuple(inputs)), tuple(residuals))

    def propagate(self, params, residuals, dy, need_dx=True):
        (length, outputs, inputs), inner = residuals
        deltas, from_above = [], None
        for k, link in reversed(list(enumerate(self.links))):
            of_goodness = dy[..., None] * (2 / outputs[k].shape[-1]) * outputs[k] if self.counts(k) else None
            dz, above = self.back(params, inner, link, added(of_goodness, from_above))
            deltas = [dz, *above, *deltas]
            if k or need_dx:
                d = link.layer.backward(params[link.at], inner[link.at], dz)
                across = d - inputs[k] * (d * inputs[k]).mean(axis=-1, keepdims=True)
                from_above = across / (self._length(outputs[k - 1]) if k else length)
        dx = from_above[..., : -self.classes].sum(axis=1) if need_dx else None  # type: ignore[index]
        return dx, tuple(deltas)

    def tangent(self, params, residuals, dparams, dx):
        (length, outputs, inputs), inner = residuals
        ways = (None,) * len(self.layers) if dparams is None else dparams
        xp, total, moved = namespace(*outputs), None, None
        if dx is not None:
            moved = xp.concatenate([dx, xp.zeros((len(dx), self.classes), dx.dtype)], axis=-1)[:, None]
        for k, (layer, at, end) in enumerate(self.links):
            if moved is not None:
                across = moved - inputs[k] * (moved * inputs[k]).mean(axis=-1, keepdims=True)
                moved = across / (self._length(outputs[k - 1]) if k else length)
            moved = layer.tangent(params[at], inner[at], ways[at], moved)
            for i in range(at + 1, end):
                moved = None if moved is None else self.layers[i].tangent(params[i], inner[i], None, moved)
            if moved is not None and self.counts(k):
                total = added(total, 2 * (outputs[k] * moved).mean(axis=-1))
        return total
