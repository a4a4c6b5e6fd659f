"""ONNX (the extra `onnx`): a trained network as a graph of standard operators, for any runtime that reads the format.

`export` writes the file. Each class of layer has a translation, a function that adds its operators to a graph:

    graph           Value, Node, Graph: the graph while it is being made; `translation`, which makes a function known
    writing         export: which axes stay open, the metadata, the file
    activations     operators entry by entry, and along the last axis
    maps            Dense, Conv, pooling, Embedding, recurrent layers, normalization
    compositions    Serial, Residual, Parallel, Frozen, Last, Hopfield, Goodness; what costs predict

The operators are those of opset 20 (IR version 9), which ONNX Runtime reads from 1.17 on. Nothing here needs JAX.
"""

from . import activations as activations
from . import compositions as compositions
from . import maps as maps
from .graph import Graph as Graph
from .graph import Node as Node
from .graph import Value as Value
from .graph import translation as translation
from .writing import export as export
