"""Layers: formulas, each beside its derivative.

base             the contract that every layer keeps
dense            Dense
windows          where a kernel is applied to an image or a sequence
convolution      Conv
pooling          MaxPool, AvgPool, GlobalMaxPool, GlobalAvgPool
embedding        Embedding
recurrence       Rnn, Lstm, Gru; a base for your own: Recurrent
simple           Scale, Flatten, Dropout, Function
activations      σ(z), entry by entry or row by row
normalization    LayerNorm, RMSNorm, Standardize
"""

from . import activations as activations
from .base import Layer as Layer
from .convolution import Conv as Conv
from .dense import Dense as Dense
from .dense import DenseParams as DenseParams
from .embedding import Embedding as Embedding
from .normalization import LayerNorm as LayerNorm
from .normalization import RMSNorm as RMSNorm
from .pooling import AvgPool as AvgPool
from .pooling import GlobalAvgPool as GlobalAvgPool
from .pooling import GlobalMaxPool as GlobalMaxPool
from .pooling import MaxPool as MaxPool
from .recurrence import Gru as Gru
from .recurrence import GruParams as GruParams
from .recurrence import Lstm as Lstm
from .recurrence import Recurrent as Recurrent
from .recurrence import RecurrentParams as RecurrentParams
from .recurrence import Rnn as Rnn
from .simple import Dropout as Dropout
from .simple import Flatten as Flatten
from .simple import Function as Function
from .simple import Scale as Scale
from .standardize import Standardize as Standardize
from .standardize import StandardizeParams as StandardizeParams
