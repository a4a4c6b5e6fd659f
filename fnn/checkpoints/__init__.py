"""Checkpoints: a tree of arrays in one file that is never half written, never silently wrong, and never runs code.

The file is an .npz, a zip archive without compression, so NumPy alone can read it:

    manifest.json         the version of this format; the tree; the shape, dtype, kind and SHA-256 of each array; the
                          network as text; the names of classes that are not fnn's; the caller's metadata; versions of
                          the libraries
    params[0].w.npy ...   an array for each leaf, named by its place: bfloat16 as uint16 bits, a random key as its words

`save` writes a temporary file, syncs it, reads it back and renames it over the target, so a reader sees the old file or
the new one. Files are treated as untrusted: `load` reads no more bytes than the file has, checks the SHA-256 of every
array, and makes nothing but arrays, containers and the classes that it finds by name. Nothing is pickled.

An array is named by its place, in a safetensors file with dots: `params[0].w`, `0.w`. The places of the parameters are

    Dense, Conv      w, b             (O, I) or (O, *kernel, C/G); (O,)
    Embedding        no name          (V, O), the place of the layer itself
    Rnn, Lstm        w, u, b          (G·H, I), (G·H, H), (G·H,), with the gates one below the other
    Gru              w, u, b, c       the same, and (H,)

Layers within another one have its place before theirs: those of `Last`, `Residual` and `Serial` the number in a tuple,
if there is one, and those of `Frozen` also `params`. With names="torch" a safetensors file has the names of PyTorch.
"""

from .archive import VERSION as VERSION
from .archive import Checkpoint as Checkpoint
from .archive import load as load
from .archive import load_network as load_network
from .archive import save as save
from .safetensors import load_safetensors as load_safetensors
from .safetensors import save_safetensors as save_safetensors
from .shards import load_shards as load_shards
from .shards import save_shards as save_shards
from .text import own_classes as own_classes
from .text import text_of as text_of
from .tree import Host as Host
