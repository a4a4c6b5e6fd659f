"""Layers: formulas, each beside its derivative.

base             the contract that every layer keeps
dense            Dense
simple           Scale, Flatten, Dropout, Function
activations      σ(z), entry by entry or row by row
normalization    LayerNorm, RMSNorm, Standardize
"""

from . import activations as activations
from .base import Layer as Layer
from .dense import Dense as Dense
from .dense import DenseParams as DenseParams
from .normalization import LayerNorm as LayerNorm
from .normalization import RMSNorm as RMSNorm
from .simple import Dropout as Dropout
from .simple import Flatten as Flatten
from .simple import Function as Function
from .simple import Scale as Scale
from .standardize import Standardize as Standardize
from .standardize import StandardizeParams as StandardizeParams
