"""Networks whose first layer standardizes their input by constants that are measured on data."""

from typing import Any

import numpy as np

from . import gate, random, trees
from .backend import namespace
from .devices import on_any_axes
from .errors import KindError, ShapeError, usage
from .layers import Layer, Standardize
from .networks import Frozen, Serial


@on_any_axes
@usage("fnn.standardized(net, x, key)")
def standardized(net: Layer, x: Any, key: Any, *, weights: Any = None, dtype: Any = np.float32) -> tuple[Serial, Any]:
    """Put a layer in front of a network that gives each feature of its input mean 0 and standard deviation 1.

        y = f((x − μ) / σ)        μ, σ measured on x, as `Standardize.measured` does

    μ and σ are not learnt. They are among the parameters, so that they are saved, loaded and served with the rest, and
    the network takes the features as they are. Measure them on the training data alone.

    Args:
        net: f.
        x: data (N, ...): arrays, data frames, memory-mapped arrays larger than memory, or `fnn.Batches`.
        key: the random key of the other parameters.
        weights: (N,), at least 0; an example of weight 0 is ignored. Default: 1 each.
        dtype: of the parameters. Default: float32.

    Returns:
        `(net, params)`, for `fnn.fit(net, loss, optimizer, data, key=key, params=params, ...)`. σ is 1 where a feature
        is constant.

    Raises:
        DataError: if a number is NaN or infinite.
        KindError: if x is several arrays, or symbols.

    Source: Y. LeCun et al., "Efficient BackProp" (1998), sec. 4.3.

    >>> from fnn import mlp
    >>> x = np.array([[1.0, 300.0], [3.0, 500.0]])
    >>> net, params = standardized(mlp((8, 1)), x, random.key(0, backend="numpy"))
    >>> net
    Serial((Frozen(Standardize()), Dense(8), Relu(), Dense(1)))
    >>> params[0].params.mean
    array([  2., 400.], dtype=float32)
    """
    gate.check_network(net)
    key = random.check_key(key)
    constants = Standardize().measured(x, weights, dtype)
    input_shape = constants.mean.shape
    try:
        net.check(np.zeros((1, *input_shape), np.float32))
    except (KindError, ShapeError) as error:
        raise KindError(f"standardized: expected a network of numbers; {error}") from error
    layers = net.layers if isinstance(net, Serial) else (net,)
    deep = Serial((Frozen(Standardize()), *layers))
    params = deep.init(key, input_shape, dtype)
    return deep, (trees.Fixed(trees.lock(trees.map(namespace(key).asarray, constants))), *params[1:])
