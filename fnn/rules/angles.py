"""How far a rule's gradient points away from that of backpropagation, layer by layer, as metrics of a run."""

from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from .. import gate, trees
from ..backend import namespace, widened
from ..backpropagation import differentiate, penalised
from ..composition import Composition, walk
from ..networks import Frozen
from ..numerics import root, scale_of
from .base import RuleOutput, of_inner


def alignment(net: Any, ours: Any, theirs: Any) -> dict[str, Any]:
    """The angle between two gradients, for each layer that learns.

        ∠(g, h) = 2 atan2(‖ĝ − ĥ‖, ‖ĝ + ĥ‖)        ĝ = g / ‖g‖        in degrees: 0 is the same direction, 90 none

    g and h are all parameters of a layer together. Where one of them is 0 the angle is 90, where both are it is 0.

    Args:
        net: the network.
        ours: a gradient, nested as its parameters.
        theirs: another one.

    Returns:
        A dict from the layer's place in the network, as in `fnn.summary`, to the angle: `{"angle_0": 45.0, ...}`.

    Raises:
        KindError: a gradient has a leaf that is not a floating-point array.
        ShapeError: the two gradients differ in structure or shape.

    Source: T. Lillicrap et al., "Random synaptic feedback weights support error backpropagation for deep learning"
    (2016), fig. 2, of errors; the formula is that of W. Kahan, "How futile are mindless assessments of roundoff in
    floating-point computation?" (2006), §12.

    >>> import fnn
    >>> alignment(fnn.Dense(1, bias=False), fnn.DenseParams(np.ones((1, 2)), ()), fnn.DenseParams(np.eye(1, 2), ()))
    {'angle_': np.float64(45.0)}
    """
    gate.check_network(net)
    gate.check_parameters((ours, theirs))
    trees.same_structure("theirs", theirs, ours)
    angles, frozen = {}, []
    for place, layer, g, h in walk(net, ours, theirs):
        frozen += [f"{place}." if place else ""] if isinstance(layer, Frozen) else []
        if trees.leaves(g) and not isinstance(layer, Composition) and not place.startswith(tuple(frozen)):
            angles[f"angle_{place}"] = angle(trees.leaves(g), trees.leaves(h))
    return angles


def angle(ours: list, theirs: list) -> Any:
    """The angle between two lists of arrays, in degrees."""
    xp = namespace(*ours, *theirs)
    g, h = (_unit([widened(a).reshape(-1) for a in arrays]) for arrays in (ours, theirs))
    length = lambda sign: root(sum(((a + sign * b) ** 2).sum() for a, b in zip(g, h, strict=True)))
    return xp.degrees(2 * xp.arctan2(length(-1), length(1)))


def _unit(arrays):
    """Arrays over their common norm; zeros stay zeros."""
    unit = scale_of(namespace(*arrays).stack([abs(a).max(initial=0) for a in arrays]).max())
    norm = root(sum(((a / unit) ** 2).sum() for a in arrays))
    return [a / unit / namespace(norm).where(norm > 0, norm, 1) for a in arrays]


class Aligned(NamedTuple):
    """Another rule, which reports after each step how far its gradient was from that of backpropagation.

    The metrics are those of the rule and `angle_0`, `angle_2`, ..., one for each layer that learns (`alignment`); `fit`
    has their mean over each epoch, and `fnn.plots.alignment` draws them. A step costs one of backpropagation more, and
    draws the same noise in layers such as dropout where the rule makes a single forward pass. The penalty, which all
    rules treat alike, does not count.

    Args:
        rule: the rule.

    >>> import fnn
    >>> net, rule, data = fnn.mlp((3, 1)), Aligned(fnn.rules.FeedbackAlignment()), (np.eye(2), np.ones((2, 1)))
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (2,), rule=rule)
    >>> _, history = fnn.train(net, fnn.Quadratic(), state, data, steps=5, batch_size=2)
    >>> sorted(history), history["angle_0"].shape
    (['angle_0', 'angle_2', 'loss', 'weight'], (5,))
    """

    rule: Any

    sampling, weighted = of_inner("sampling", "shuffled"), of_inner("weighted", True)
    draws, private = of_inner("draws", True), of_inner("private", False)
    of_cost, overflows = of_inner("of_cost", False), of_inner("overflows", False)

    def init(self, problem, params, key):
        """The state of the rule."""
        return self.rule.init(problem, params, key)

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """That of the rule, with the angles among its metrics."""
        plain = problem._replace(penalty=None)
        value, grads, state, metrics = self.rule.gradient(plain, params, state, batch, keys)
        angles = alignment(problem.net, grads, differentiate(plain, params, batch, keys.net)[1])
        return RuleOutput(*penalised(problem.penalty, params, value, grads), state, {**metrics, **angles})
