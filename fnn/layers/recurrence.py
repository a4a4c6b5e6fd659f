"""Recurrent layers: a state that changes at each position of a sequence, and backpropagation through time.

Letters: N examples, T positions, I inputs, H units, G gates. What depends on the inputs alone is one product for all
positions, s = x Wᵀ + b, and only the state goes from position to position, with h_0 = 0:

    h_t = f(s_t, U h_{t−1})        x (N, T, I)   W (G·H, I)   U (G·H, H)   b (G·H,)   s (N, T, G·H)   h (N, T, H)

Backwards, the error at position t is what comes from the output and what comes from position t + 1. With δ_t, the error
of s_t, that is, where the parameters act, one product for all positions gives each gradient:

    dW = Σ_nt δ_nt x_ntᵀ        dU = Σ_nt δ_nt h_n,t−1ᵀ        db = Σ_nt δ_nt        dx = δ W

All derivatives of one position (`slopes`) are computed for all positions at once, too; backwards and along a direction
the loop only multiplies them. The gates have PyTorch's order: its weight_ih and weight_hh are W and U here.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from .. import backend, random, trees
from ..backend import floating, namespace
from ..errors import KindError, ShapeError, shape, shorten, usage
from ..initializers import Initializer, LecunNormal, Orthogonal, check_initializer
from ..matrices import contract, product
from ..numerics import logistic
from ..outer import Outer
from ..static import Interval
from .base import Array, Layer, added

UNROLL = 8  # positions in a turn of the compiled loop on an accelerator: an Lstm's step is 1.5 times as fast there

SIGMOID, TANH = (0.0, 1.0), (-1.0, 1.0)  # the limits of the gates


class RecurrentParams(NamedTuple):
    """Parameters of `Rnn` and `Lstm`: `w` (G·H, I), `u` (G·H, H) and `b` (G·H,)."""

    w: Array
    u: Array
    b: Array


class GruParams(NamedTuple):
    """Parameters of `Gru`: `w` (3H, I), `u` (3H, H), `b` (3H,), and `c` (H,), the bias inside the reset gate."""

    w: Array
    u: Array
    b: Array
    c: Array


@dataclass(frozen=True)
class Recurrent(Layer):
    """What the recurrent layers share: everything but the equations of one position.

    A layer of your own defines `ahead`, `slopes`, `back` and `along`, and `gates`: for each block of W and U, in their
    order, its name and the limits of the function applied to it. Except in `slopes`, the arrays are those of one
    position, and h is the first array of a state.
    """

    units: Annotated[int, Interval("[1, ∞)")]
    all_states: bool = False
    initializer: Initializer = field(default=LecunNormal(), kw_only=True)
    recurrent_initializer: Initializer = field(default=Orthogonal(), kw_only=True)
    draws: ClassVar[bool] = False
    gates: ClassVar[dict[str, tuple[float, float]]] = {"h": TANH}
    states: ClassVar[int] = 1

    def __post_init__(self):
        if np.ndim(self.all_states) or self.all_states not in (0, 1):
            raise KindError(
                f"all_states: expected True or False, got {shorten(self.all_states)}; write "
                f"fnn.{type(self).__name__}(units), without the number of inputs, which is that of x"
            )
        super().__post_init__()
        for name in ("initializer", "recurrent_initializer"):
            check_initializer(name, getattr(self, name))

    def ahead(self, params, state, s, /) -> Any:
        """Forward: `(state, kept)`, the next state and what is kept: h first, and the values of the gates last."""
        raise NotImplementedError

    def slopes(self, kept, /) -> Any:
        """The derivatives that `back` and `along` multiply, for all positions at once."""
        raise NotImplementedError

    def back(self, u, slopes, dstate, /) -> Any:
        """Backward: `(delta, dstate)`, δ and the error of the state before."""
        raise NotImplementedError

    def along(self, slopes, dstate, ds, dv, /) -> Any:
        """Forward mode: the change of the state, from those of the state before, of W x + b and of U h."""
        raise NotImplementedError

    def output_shape(self, input_shape):
        input_shape = shape("input_shape", input_shape)
        if len(input_shape) != 2:
            hint = ""
            if len(input_shape) == 1:
                hint = "; for one number per position use x[..., None]; a recurrent layer below takes all_states=True"
            raise ShapeError(f"expected input of shape (T, I), positions and inputs, got {input_shape}{hint}")
        return (input_shape[0], self.units) if self.all_states else (self.units,)

    def init(self, key, input_shape, dtype: Any = np.float32) -> Any:
        self.output_shape(input_shape)
        for_w, for_u = random.split(key)
        w = self._blocks(self.initializer, for_w, input_shape[1], dtype)
        u = self._blocks(self.recurrent_initializer, for_u, self.units, dtype)
        return RecurrentParams(w, u, trees.lock(namespace(w).zeros(len(w), w.dtype)))

    def _blocks(self, initializer, key, inputs, dtype):
        """A matrix for each gate, drawn independently, one below the other."""
        keys = random.split(key, len(self.gates))
        matrices = [initializer(k, (self.units, inputs), dtype) for k in keys]
        return trees.lock(namespace(*matrices).concatenate(matrices))

    def forward(self, params, x, key=None):
        x = floating(x, params.w.dtype)
        s = product(x, params.w.T) + params.b
        ahead = lambda state, s: self.ahead(params, state, s[0])
        _, kept = backend.scan(ahead, self._still(s), (_swapped(s),), unroll=UNROLL)
        kept = trees.map(_swapped, kept)
        return (kept[0] if self.all_states else kept[0][:, -1]), (x, kept)

    def propagate(self, params, residuals, dy, need_dx=True):
        def back(dstate, here):
            slopes, dy = here
            delta, dstate = self.back(params.u, slopes, dstate if dy is None else (dstate[0] + dy, *dstate[1:]))
            return dstate, delta

        start = self._still(dy) if self.all_states else (dy, *self._still(dy)[1:])
        slopes = trees.map(_swapped, self.slopes(residuals[1]))
        here = slopes, _swapped(dy) if self.all_states else None
        delta = trees.map(_swapped, backend.scan(back, start, here, reverse=True, unroll=UNROLL)[1])
        return (product(self._errors(delta)[0], params.w) if need_dx else None), delta

    def backward(self, params, residuals, dy):
        return self.propagate(params, residuals, dy)[0]

    def factors(self, params, residuals, delta):
        x, kept = residuals
        ds, dv = self._errors(delta)
        return type(params)(Outer(ds, x), Outer(dv, before(kept[0])), *(d.sum(axis=1) for d in self._of_biases(delta)))

    def gradient(self, params, residuals, delta):
        x, kept = residuals
        ds, dv = self._errors(delta)
        dw, du = (contract(*pair, dtype=params.w.dtype) for pair in ((ds, x), (dv, before(kept[0]))))
        return type(params)(dw, du, *(d.sum(axis=(0, 1)) for d in self._of_biases(delta)))

    def tangent(self, params, residuals, dparams, dx):
        x, kept = residuals
        dw, du, *dbiases = (None,) * 4 if dparams is None else dparams
        ds = added(None if dx is None else product(dx, params.w.T), None if dw is None else product(x, dw.T))
        dv = None if du is None else product(before(kept[0]), du.T)
        ds, dv = self._with_biases(ds, dv, *dbiases)
        if ds is None and dv is None:
            return None
        zeros = namespace(x).zeros((*x.shape[:2], len(params.u)), x.dtype)
        here = trees.map(
            _swapped, (self.slopes(kept), zeros if ds is None else zeros + ds, zeros if dv is None else zeros + dv)
        )

        def along(dstate, here):
            slopes, ds, dv = here
            dstate = self.along(slopes, dstate, ds, dv + dstate[0] @ params.u.T)
            return dstate, dstate[0] if self.all_states else ()

        last, every = backend.scan(along, self._still(zeros), here, unroll=UNROLL)
        return _swapped(every) if self.all_states else last[0]

    def _still(self, like):
        """The state before the first position: zeros."""
        return (namespace(like).zeros((like.shape[0], self.units), like.dtype),) * self.states

    def _errors(self, delta):
        """The errors of W x + b and of U h, each (N, T, G·H)."""
        return delta, delta

    def _of_biases(self, delta):
        """The error that reaches each bias at each position."""
        return (delta,)

    def _with_biases(self, ds, dv, db, dc=None):
        """The changes of W x + b and of U h, with those of the biases."""
        return added(ds, db), dv

    def _split(self, values):
        """(…, G·H) as G arrays (…, H)."""
        return [values[..., g * self.units : (g + 1) * self.units] for g in range(values.shape[-1] // self.units)]


def _swapped(a):
    """(N, T, ·) as (T, N, ·), and back."""
    return a.swapaxes(0, 1)


def before(a):
    """(N, T, H) one position earlier, with zeros before the first."""
    return namespace(a).concatenate([0 * a[:, :1], a[:, :-1]], axis=1)


def _joined(*parts):
    return namespace(*parts).concatenate(parts, axis=-1)


@usage("fnn.Rnn(64), or fnn.Rnn(64, all_states=True) for the state at each position")
@dataclass(frozen=True)
class Rnn(Recurrent):
    """Elman's recurrent layer.

        h_t = tanh(W x_t + b + U h_{t−1})        x (N, T, I)   h (N, T, H)
        δ_t = (1 − h_t²) dh_t        dh_{t−1} = Uᵀ δ_t + what comes from the output

    Args:
        units: H, at least 1.
        all_states: whether the output is the state at each position, (N, T, H), or only the last one, (N, H). Default:
            False, the last one.
        initializer: the initializer of W. Default: `LecunNormal()`.
        recurrent_initializer: the initializer of U. Default: `Orthogonal()`.

    Source: J. Elman, "Finding structure in time" (1990); P. Werbos, "Backpropagation through time: what it does and how
    to do it" (1990).

    >>> Rnn(4).output_shape((7, 3)), Rnn(4, all_states=True).output_shape((7, 3))
    ((4,), (7, 4))
    """

    def ahead(self, params, state, s):
        h = namespace(s).tanh(s + state[0] @ params.u.T)
        return (h,), (h,)

    def slopes(self, kept):
        return (1 - kept[0] ** 2,)

    def back(self, u, slopes, dstate):
        delta = slopes[0] * dstate[0]
        return delta, (delta @ u,)

    def along(self, slopes, dstate, ds, dv):
        return (slopes[0] * (ds + dv),)


@usage("fnn.Lstm(64), or fnn.Lstm(64, all_states=True) for the state at each position")
@dataclass(frozen=True)
class Lstm(Recurrent):
    """Long short-term memory: a cell c that is added to, behind an input, a forget and an output gate.

        (z^i, z^f, z^g, z^o) = W x_t + b + U h_{t−1}        i = σ(z^i)   f = σ(z^f)   g = tanh(z^g)   o = σ(z^o)
        c_t = f ⊙ c_{t−1} + i ⊙ g        h_t = o ⊙ tanh(c_t)

        dc_t = (what comes from t + 1) + o (1 − tanh² c_t) dh_t        dc_{t−1} = f dc_t        dh_{t−1} = Uᵀ δ_t
        δ^i = i (1 − i) g dc_t   δ^f = f (1 − f) c_{t−1} dc_t   δ^g = (1 − g²) i dc_t   δ^o = o (1 − o) tanh(c_t) dh_t

    The gates have the order i, f, g, o, as in PyTorch, whose two biases have b as their sum. b starts at 0, except that
    of the forget gate, which starts at 1, so that at first the cell remembers.

    Args:
        units: H, at least 1.
        all_states: whether the output is the state at each position, (N, T, H), or only the last one, (N, H). Default:
            False, the last one.
        initializer: the initializer of the four blocks of W. Default: `LecunNormal()`.
        recurrent_initializer: the initializer of the four blocks of U. Default: `Orthogonal()`.

    Source: S. Hochreiter, J. Schmidhuber, "Long short-term memory" (1997), with the forget gate of F. Gers,
    J. Schmidhuber, F. Cummins, "Learning to forget" (2000), and its bias of R. Jozefowicz, W. Zaremba, I. Sutskever,
    "An empirical exploration of recurrent network architectures" (2015).

    >>> Lstm(4).output_shape((7, 3)), Lstm(4, all_states=True).output_shape((7, 3))
    ((4,), (7, 4))
    """

    gates: ClassVar[dict[str, tuple[float, float]]] = {"i": SIGMOID, "f": SIGMOID, "g": TANH, "o": SIGMOID}
    states: ClassVar[int] = 2

    def init(self, key, input_shape, dtype: Any = np.float32):
        params, h = super().init(key, input_shape, dtype), self.units
        gate = np.arange(4 * h) // h
        return params._replace(b=trees.lock(namespace(params.w).asarray((gate == 1).astype(params.b.dtype))))

    def ahead(self, params, state, s):
        xp, (h, c) = namespace(s), state
        i, f, g, o = self._split(s + h @ params.u.T)
        i, f, g, o = logistic(i), logistic(f), xp.tanh(g), logistic(o)
        c = f * c + i * g
        h = o * xp.tanh(c)
        return (h, c), (h, c, _joined(i, f, g, o))

    def slopes(self, kept):
        _, c, gates = kept
        i, f, g, o = self._split(gates)
        t = namespace(c).tanh(c)
        of_z = _joined(i * (1 - i) * g, f * (1 - f) * before(c), (1 - g * g) * i, o * (1 - o) * t)
        return of_z, o * (1 - t * t), f

    def back(self, u, slopes, dstate):
        (of_z, of_h, f), (dh, dc) = slopes, dstate
        dc = dc + of_h * dh
        delta = of_z * _joined(dc, dc, dc, dh)
        return delta, (delta @ u, f * dc)

    def along(self, slopes, dstate, ds, dv):
        of_z, of_h, f = slopes
        di, df, dg, do = self._split(of_z * (ds + dv))
        dc = f * dstate[1] + di + df + dg
        return do + of_h * dc, dc


@usage("fnn.Gru(64), or fnn.Gru(64, all_states=True) for the state at each position")
@dataclass(frozen=True)
class Gru(Recurrent):
    """The gated recurrent unit: a reset and an update gate.

        (s^r, s^z, s^n) = W x_t + b        (v^r, v^z, v^n) = U h_{t−1}
        r = σ(s^r + v^r)   z = σ(s^z + v^z)   q = v^n + c   n = tanh(s^n + r ⊙ q)        h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

        δ^n = (1 − z)(1 − n²) dh_t   δ^z = z (1 − z)(h_{t−1} − n) dh_t   δ^r = r (1 − r) q δ^n   δ^q = r δ^n
        dh_{t−1} = z dh_t + Uᵀ (δ^r, δ^z, δ^q)        dU = Σ (δ^r, δ^z, δ^q) h_{t−1}ᵀ        dc = Σ δ^q

    This is the variant of PyTorch and cuDNN, in which the reset gate acts after the product with U and has a bias c
    inside it; in Cho's it acts before. The gates have PyTorch's order, r, z, n. To load its weights, add the parts of
    its bias_hh for r and z to b, and take the part for n as c.

    Args:
        units: H, at least 1.
        all_states: whether the output is the state at each position, (N, T, H), or only the last one, (N, H). Default:
            False, the last one.
        initializer: the initializer of the three blocks of W. Default: `LecunNormal()`.
        recurrent_initializer: the initializer of the three blocks of U. Default: `Orthogonal()`.

    Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation" (2014), eqs. 5 to 8; J. Chung et al., "Empirical evaluation of gated recurrent neural networks on
    sequence modeling" (2014).

    >>> Gru(4).output_shape((7, 3)), Gru(4, all_states=True).output_shape((7, 3))
    ((4,), (7, 4))
    """

    gates: ClassVar[dict[str, tuple[float, float]]] = {"r": SIGMOID, "z": SIGMOID, "n": TANH}

    def init(self, key, input_shape, dtype: Any = np.float32) -> Any:
        params = super().init(key, input_shape, dtype)
        c = trees.lock(namespace(params.w).zeros(self.units, params.w.dtype))
        return GruParams(params.w, params.u, params.b, c)

    def ahead(self, params, state, s):
        xp, h = namespace(s), state[0]
        (sr, sz, sn), (vr, vz, vn) = self._split(s), self._split(h @ params.u.T)
        r, z, q = logistic(sr + vr), logistic(sz + vz), vn + params.c
        n = xp.tanh(sn + r * q)
        h = n + z * (h - n)
        return (h,), (h, q, _joined(r, z, n))

    def slopes(self, kept):
        h, q, gates = kept
        r, z, n = self._split(gates)
        of_n = (1 - z) * (1 - n * n)
        return _joined(r * (1 - r) * q * of_n, z * (1 - z) * (before(h) - n), of_n), r * of_n, z

    def back(self, u, slopes, dstate):
        (of_s, of_q, z), (dh,) = slopes, dstate
        delta = of_s * _joined(dh, dh, dh), of_q * dh
        return delta, (z * dh + self._errors(delta)[1] @ u,)

    def along(self, slopes, dstate, ds, dv):
        of_s, of_q, z = slopes
        dr, dz, dn = self._split(of_s * ds)
        vr, vz, _ = self._split(of_s * dv)
        return (z * dstate[0] + dr + dz + dn + vr + vz + of_q * self._split(dv)[2],)

    def _errors(self, delta):
        return delta[0], _joined(delta[0][..., : 2 * self.units], delta[1])

    def _of_biases(self, delta):
        return delta

    def _with_biases(self, ds, dv, db, dc=None):
        if dc is not None:
            inside = namespace(dc).concatenate([0 * dc, 0 * dc, dc])
            dv = inside if dv is None else dv + inside
        return added(ds, db), dv
