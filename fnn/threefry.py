"""Threefry-2x32 in NumPy: the cipher behind `fnn.random`, and the inverse error function of its normal draws.

A key and a counter are two words each; the cipher makes two words of them. Everything agrees with JAX's own.

Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
"""

import math
from statistics import NormalDist

import numpy as np

LARGEST = 0xFFFFFFFF  # of a word

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def words_of(hi, lo):
    """A key of these two words."""
    return locked(np.array((hi, lo), dtype=np.uint32))


def locked(words):
    """The same array, which can no longer be written to."""
    words.flags.writeable = False
    return words


def counter(count):
    """The numbers 0 … count−1 as high and low words."""
    number = np.arange(count, dtype=np.uint64)
    return (number >> np.uint64(32)).astype(np.uint32), number.astype(np.uint32)


def cipher(key, x0, x1):
    """The cipher on arrays of two words."""
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x0, x1 = x0 + k0, x1 + k1
        for block in range(5):
            for r in _ROTATIONS[block % 2]:
                x0 = x0 + x1
                x1 = ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
            x0 = x0 + keys[(block + 1) % 3]
            x1 = x1 + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


def cipher_of_ints(k0, k1, x0, x1):
    """The cipher on two Python ints, which is ten times faster than on arrays with one entry."""
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0, x1 = (x0 + k0) & LARGEST, (x1 + k1) & LARGEST
    for block in range(5):
        for r in _ROTATIONS[block % 2]:
            x0 = (x0 + x1) & LARGEST
            x1 = ((x1 << r | x1 >> (32 - r)) & LARGEST) ^ x0
        x0 = (x0 + keys[(block + 1) % 3]) & LARGEST
        x1 = (x1 + keys[(block + 2) % 3] + block + 1) & LARGEST
    return x0, x1


# erf⁻¹ in single precision, as a polynomial in w = −log(1 − x²): M. Giles, "Approximating the erfinv function",
# GPU Computing Gems Jade Edition (2011), table 1. XLA uses the same, so the normals of both backends agree.
_CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
           -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
         -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


def erfinv(x):
    """erf⁻¹, in the dtype of x."""
    if x.dtype == np.float64:  # Φ⁻¹ to double precision: M. Wichura, algorithm AS 241, in Python's statistics module
        quantile = NormalDist().inv_cdf
        tails = [quantile(p) if p else -math.inf for p in ((1 - np.abs(x)) / 2).reshape(-1).tolist()]
        return np.copysign(np.array(tails).reshape(x.shape), x) / math.sqrt(2)
    with np.errstate(divide="ignore"):
        w = -np.log1p(-x * x)
    centre = w < np.float32(5)
    w = np.where(centre, w - np.float32(2.5), np.sqrt(w) - np.float32(3))
    p = np.where(centre, np.float32(_CENTRE[0]), np.float32(_TAIL[0]))
    for c, t in zip(_CENTRE[1:], _TAIL[1:], strict=True):
        p = np.where(centre, np.float32(c), np.float32(t)) + p * w
    return np.where(np.abs(x) < 1, p * x, np.copysign(np.float32(np.inf), x))
