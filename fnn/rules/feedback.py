"""Feedback: backpropagation in which other matrices carry the errors backward, so that no weight is used twice.

    backpropagation      δˡ = (δˡ⁺¹ W) ⊙ f'            W (O, I), the matrix of the layer above
    here                 δˡ = (δˡ⁺¹ B) ⊙ f'            B (O, I), a matrix of its own, or e B with B (C, I)
                         dW = Σₙ δ aᵀ                  as ever

Only the matrices of linear maps are replaced (`DenseParams`: `Dense`, `Conv`, layers of your own); gains, slopes,
biases and constants stay, and so do recurrent layers, through which errors are backpropagated.
"""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from .. import random, trees  # noqa: F401 - random for the examples
from ..backend import cast, namespace
from ..backpropagation import differentiate
from ..errors import ShapeError
from ..examples import shape_of
from ..static import Interval
from .base import RuleOutput
from .chain import drawn, flat, lowest, maps, nested, shapes_through, whole, with_matrices


def fed_back(problem, params, matrices, batch, key):
    """`(value, grads)` with these matrices in place of those of the linear maps, on the way back only."""
    feedback = with_matrices(params, matrices)
    carry = lambda _, residuals, dy, need_dx=True: problem.net.propagate(feedback, residuals, dy, need_dx)
    return differentiate(problem, params, batch, key, propagate=carry)


def random_matrices(params, key, scale) -> tuple:
    """A random matrix for each linear map, shaped as its own: normal, with standard deviation scale / √I."""
    ws = [p.w for p in maps(params)]
    return tuple(drawn(key, i, w.shape, w[0].size, scale, w.dtype) for i, w in enumerate(ws))


def check_state(rule, state, shapes):
    """Raise unless a state, which a user may have set, is one matrix of each of these shapes."""
    found = [tuple(b.shape) for b in trees.leaves(state)]
    if found != shapes:
        raise ShapeError(
            f"{type(rule).__name__}: expected a state of matrices of shapes {shapes}, got {found}; the state is "
            "that of the run, fnn.init_state(..., rule=...), and of its size of inputs"
        )


class FeedbackAlignment(NamedTuple):
    """Errors are carried backward by fixed random matrices, with which the weights come to align.

        δˡ = (δˡ⁺¹ B) ⊙ f'        dW = Σₙ δ aᵀ        B ~ scale · 𝒩(0, 1/I), drawn once        B, W (O, I)

    The rule's state is the tuple of the matrices B, in the order of the linear maps. `state._replace(rule_state=...)`
    sets others; with B = W it is backpropagation.

    Args:
        scale: the size of B, over that of weights as they are drawn by default. Default: 1.

    Source: T. Lillicrap, D. Cownden, D. Tweed, C. Akerman, "Random synaptic feedback weights support error
    backpropagation for deep learning" (2016).

    >>> import fnn
    >>> net, key = fnn.mlp((3, 2)), random.key(0, backend="numpy")
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), key, (4,), rule=FeedbackAlignment())
    >>> [b.shape for b in state.rule_state]
    [(3, 4), (2, 3)]
    """

    scale: Annotated[Any, Interval("(0, ∞)")] = 1.0

    def init(self, problem, params, key):
        """The matrices."""
        return random_matrices(params, key, self.scale)

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, and the gradient with errors by way of B."""
        check_state(self, state, [p.w.shape for p in maps(params)])
        return RuleOutput(*fed_back(problem, params, state, batch, keys.net), state)


class SignSymmetry(NamedTuple):
    """Errors are carried backward by the signs of the weights alone.

        δˡ = (δˡ⁺¹ B) ⊙ f'        dW = Σₙ δ aᵀ        B = scale / √I · sign W        B, W (O, I)

    Of the variants in the paper this is the one of uniform magnitudes, without batch normalization or rounded updates.

    Args:
        scale: the size of B, over that of weights as they are drawn by default. Default: 1.

    Source: Q. Liao, J. Leibo, T. Poggio, "How important is weight symmetry in backpropagation?" (2016), uniform
    sign-concordant feedback.

    >>> import fnn
    >>> state = fnn.init_state(fnn.Dense(1), fnn.Sgd(0.1), random.key(0, backend="numpy"), (2,), rule=SignSymmetry())
    >>> state.rule_state
    ()
    """

    scale: Annotated[Any, Interval("(0, ∞)")] = 1.0

    draws = False

    def init(self, problem, params, key):
        """No state."""
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, and the gradient with errors by way of the signs."""
        ws = [p.w for p in maps(params)]
        signs = [cast(namespace(w).sign(w) * (self.scale / math.sqrt(w[0].size)), w.dtype) for w in ws]
        return RuleOutput(*fed_back(problem, params, signs, batch, keys.net), state)


class KolenPollack(NamedTuple):
    """Errors are carried backward by matrices that change as the weights do, and so become equal to them.

        δˡ = (δˡ⁺¹ B) ⊙ f'        dW = Σₙ δ aᵀ        B − W ← (1 − λ)(B − W)        B, W (O, I)

    Let W and B begin apart, take the same steps, since both see a and δ, and decay by the same share λ of themselves:
    W ← (1 − λ) W − U and B ← (1 − λ) B − U. Whatever U is, and so whatever the optimizer, B − W shrinks by 1 − λ a
    step. The rule's state is this difference, in which the equal steps cancel. The decay of the weights themselves is
    left to the optimizer or a penalty: λ a step is `fnn.L2(λ / η)` for `fnn.Sgd(η)`.

    Args:
        decay: λ, in [0, 1]. With 0 it is feedback by B = W + a constant. Default: 0.001.
        scale: the size of the first B, over that of weights as they are drawn by default. Default: 1.

    Source: J. Kolen, J. Pollack, "Backpropagation without weight transport" (1994); M. Akrout, C. Wilson, P. Humphreys,
    T. Lillicrap, D. Tweed, "Deep learning without weight transport" (2019), eqs. 16 and 17.

    >>> import fnn
    >>> net, data = fnn.mlp((3, 1)), (np.eye(2), np.ones((2, 1)))
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), random.key(0, backend="numpy"), (2,), rule=KolenPollack(0.5))
    >>> after, _ = fnn.train(net, fnn.Quadratic(), state, data, epochs=10, batch_size=2)
    >>> bool(np.allclose(after.rule_state[0], state.rule_state[0] / 1024))
    True
    """

    decay: Annotated[Any, Interval("[0, 1]")] = 1e-3
    scale: Annotated[Any, Interval("(0, ∞)")] = 1.0

    def init(self, problem, params, key):
        """B − W of each linear map."""
        return tuple(b - p.w for b, p in zip(random_matrices(params, key, self.scale), maps(params), strict=True))

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, the gradient with errors by way of B, and the next differences."""
        check_state(self, state, [p.w.shape for p in maps(params)])
        feedback = [p.w + apart for p, apart in zip(maps(params), state, strict=True)]
        value, grads = fed_back(problem, params, feedback, batch, keys.net)
        return RuleOutput(value, grads, trees.map(lambda apart: (1 - self.decay) * apart, state))


class DirectFeedbackAlignment(NamedTuple):
    """The error at the output goes to every layer directly, by a fixed random matrix each.

        δˡ = (e B) ⊙ f'        dW = Σₙ δ aᵀ        e = ∂ℓ/∂output (N, C)        B ~ scale · 𝒩(0, 1/I) (C, I), drawn once

    I are the inputs of the linear map above, in place of whose matrix B stands; f' that of all between the two. What
    else a network holds in one piece, such as a `Residual`, gets its error at its output and backpropagates within. The
    rule's state is the tuple of the matrices B (C, *input shape), in the order of the linear maps but the first one
    that learns.

    Args:
        scale: the size of B, over that of weights as they are drawn by default. Default: 1.

    Source: A. Nøkland, "Direct feedback alignment provides learning in deep neural networks" (2016), eqs. 7 and 8.

    >>> import fnn
    >>> net, key = fnn.mlp((3, 4, 2)), random.key(0, backend="numpy")
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), key, (5,), rule=DirectFeedbackAlignment())
    >>> [b.shape for b in state.rule_state]
    [(2, 3), (2, 4)]
    """

    scale: Annotated[Any, Interval("(0, ∞)")] = 1.0

    def init(self, problem, params, key):
        """The matrices."""
        shapes, parts = shapes_through(problem.net, problem.input_shape), flat(problem.net, params)
        inner = [maps(parts[i])[0].w for i in fed(parts)]
        places = zip(fed(parts), inner, strict=True)
        return tuple(
            drawn(key, i, (math.prod(shapes[-1]), *shapes[i]), w[0].size, self.scale, w.dtype) for i, w in places
        )

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, and the gradient with errors straight from the output."""
        shapes = shapes_through(problem.net, shape_of(batch.x))
        check_state(self, state, [(math.prod(shapes[-1]), *shapes[i]) for i in fed(flat(problem.net, params))])
        carry = lambda params, residuals, dy, need_dx=True: direct(problem.net, params, state, residuals, dy)
        return RuleOutput(*differentiate(problem, params, batch, keys.net, propagate=carry), state)


def fed(params) -> list[int]:
    """The links below which the error comes from the output directly: those with a matrix, above the first learner."""
    return [i for i, p in enumerate(params) if maps(p) and i > lowest(params)]


def direct(net, params, matrices, residuals, dy) -> tuple[None, Any]:
    """`(None, deltas)`: from each linear map the error at its input is e B, down to the next one it is propagated."""
    chain, kept = whole(net, params), flat(net, residuals)
    error, feedback, deltas = dy.reshape(len(dy), -1), dict(zip(fed(chain.params), matrices, strict=True)), {}
    for i in reversed(range(lowest(chain.params), len(kept))):
        b = feedback.get(i)
        need_dx = b is None and i > lowest(chain.params)
        dx, deltas[i] = chain.layers[i].propagate(chain.params[i], kept[i], dy, need_dx)
        dy = dx if b is None else (error @ b.reshape(len(b), -1)).reshape(len(error), *b.shape[1:])
    return None, nested(net, [deltas.get(i) for i in range(len(kept))])
