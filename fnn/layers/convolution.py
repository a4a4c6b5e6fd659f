"""Conv: a layer of linear units that see one patch of the input each, and share their weights over all patches.

Letters: N examples, P positions (of the output), K entries of the kernel, C channels of the input, O of the output, G
groups. Images are (N, H, W, C), sequences (N, T, C).
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from .. import backend, trees
from ..backend import at_least_float32, by_platform, cast, floating, is_jax, namespace
from ..errors import ArgumentError, ShapeError, shape, usage
from ..initializers import Initializer, LecunNormal, check_initializer
from ..matrices import contract
from ..outer import Outer
from ..pieces import in_blocks, sum_of_blocks
from ..static import Interval
from .base import Layer, added
from .dense import DenseParams, over_positions
from .windows import check_channels, check_kernel, check_windows, windows_over

_BLOCK_OF_GRADIENTS = 2**20  # bytes of patches at a time, at most, for the gradient of each example
_BLOCK_OF_PRODUCTS = 2**22  # and where they are summed up in one product
_FEW = 8  # channels
_MANY = 80  # outputs of neighbouring windows


@usage("fnn.Conv(32, (3, 3)), the number of output channels and the kernel")
@dataclass(frozen=True)
class Conv(Layer):
    """Convolution (without flipping the kernel, as everywhere in the field) of images or sequences.

        z_np = Σ_k W_k x_n,p(k) + b        x (N, *sizes, C)   W (O, *kernel, C/G)   b (O,)   z (N, *positions, O)
        dx_m = Σ_{p(k)=m} W_kᵀ δ_np        dW_k = Σ_np δ_np x_n,p(k)ᵀ        db = Σ_np δ_np        δ = ∂L/∂z

    where p(k) = p s + k d − l is what entry k of window p sees, with stride s, dilation d and padding l. As
    convolutions: dx is that of δ, spread by the stride, with the flipped and transposed kernel; dW is that of x with δ,
    spread by the stride, where the examples take the place of the channels. With patches x̂ (N, P, K·C), z = x̂ Wᵀ as in
    a dense layer at P positions, so the gradient of an example is Σ_p δ_np x̂_npᵀ, and all that `fnn.factors` knows of
    dense layers holds here. Its factors are δ and x̂, or the gradient itself where that is smaller. PyTorch has the
    channels second: of its weights take `weight.movedim(1, -1)`.

    Args:
        channels: O, at least 1.
        kernel: the sizes of a window: (kh, kw) for images, (k,) for sequences.
        stride: the distance between windows: a number, or one for each axis. Default: 1.
        padding: "valid" (none), "same" (⌈n / stride⌉ positions), or zeros to add: a number, or for each axis a number
            or a pair (before, after). Default: "valid".
        dilation: the distance between the entries of a window: a number, or one for each axis. Default: 1.
        groups: G. Input and output channels are cut into G groups, each with weights of its own; G = C is a depthwise
            convolution. Default: 1.
        bias: whether to add b. Default: True.
        initializer: the initializer of W, which counts K·C/G inputs for each unit; b starts at 0. Default:
            `LecunNormal()`.

    Source: Y. LeCun et al., "Gradient-based learning applied to document recognition" (1998), sec. II; V. Dumoulin,
    F. Visin, "A guide to convolution arithmetic for deep learning" (2016).

    >>> import fnn
    >>> net = Conv(6, (5, 5))
    >>> net.output_shape((28, 28, 1))
    (24, 24, 6)
    >>> net.init(fnn.random.key(0, backend="numpy"), (28, 28, 1)).w.shape
    (6, 5, 5, 1)
    """

    channels: Annotated[int, Interval("[1, ∞)")]
    kernel: tuple[int, ...]
    stride: Any = 1
    padding: Any = "valid"
    dilation: Any = 1
    groups: Annotated[int, Interval("[1, ∞)")] = 1
    bias: bool = True
    initializer: Initializer = field(default=LecunNormal(), kw_only=True)
    draws: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "kernel", check_kernel("kernel", self.kernel))
        check_windows(self, len(self.kernel))
        super().__post_init__()
        if self.channels % self.groups:
            raise ArgumentError(f"channels: expected a multiple of {self.groups} groups, got {self.channels}")
        check_initializer("initializer", self.initializer)

    def output_shape(self, input_shape):
        return (*self._windows(input_shape).positions, self.channels)

    def check(self, x):
        check_channels(x)

    def init(self, key, input_shape, dtype: Any = np.float32):
        inputs = self._windows(input_shape) and shape("input_shape", input_shape)[-1] // self.groups
        w = self.initializer(key, (self.channels, math.prod(self.kernel) * inputs), dtype)
        w = trees.lock(w.reshape(self.channels, *self.kernel, inputs))
        return DenseParams(w, trees.lock(namespace(w).zeros((self.channels,), w.dtype)) if self.bias else ())

    def forward(self, params, x, key=None):
        x = floating(x, params.w.dtype)
        z = self._convolved(params.w, x)
        return (z + params.b if self.bias else z), x

    def backward(self, params, x, dy):
        return self._transposed(params.w, x.shape[1:], dy)

    def factors(self, params, x, dy):
        return self._factors(params, x, dy, whole=False)

    def outer_factors(self, params, x, dy):
        return self._factors(params, x, dy, whole=True)

    def _factors(self, params, x, dy, whole):
        windows = self._windows(x.shape[1:])
        delta = dy.reshape(dy.shape[0], math.prod(windows.positions), self.channels)
        db = over_positions(dy) if self.bias else ()
        positions, outputs, inputs = delta.shape[1], self.channels, params.w[0].size
        if self.groups == 1 and (whole or positions * (inputs + outputs) < inputs * outputs):
            return DenseParams(Outer(delta, windows.patches(x).reshape(*delta.shape[:2], inputs)), db)
        made = functools.partial(self._made, windows)
        most = max(1, _BLOCK_OF_GRADIENTS // (4 * positions * inputs * self.groups))
        block = 1 << most.bit_length() - 1  # a power of two, as batches are: a last part would be copied to the others
        dw = in_blocks(made, block, delta, x, late=True)
        return DenseParams(dw.reshape(dy.shape[0], *params.w.shape), db)

    def _made(self, windows, delta, x):
        """The gradient of each example, of N · O · K·C/G entries: smaller than its factors where a kernel is small."""
        n, times, wide = x.shape[0], self._neighbours(windows), at_least_float32(delta.dtype)
        joined, groups, inputs = windows.joined(times), self.groups, x.shape[-1] // self.groups
        positions, entries = math.prod(joined.positions), math.prod(joined.kernel)
        outputs = times * self.channels // groups
        patches = cast(joined.patches(x), wide).reshape(n, positions, entries, groups, inputs)
        patches = patches.transpose(0, 3, 1, 2, 4).reshape(n * groups, positions, entries * inputs)
        delta = cast(delta, wide).reshape(n, positions, groups, outputs)
        delta = delta.transpose(0, 2, 1, 3).reshape(n * groups, positions, outputs)
        made = delta.swapaxes(1, 2) @ patches  # transposed by the product itself, XLA uses all cores
        if times == 1:
            return made.reshape(n, groups, outputs, entries * inputs)
        return _apart(made.reshape(n, times, self.channels, *joined.kernel, inputs), windows)

    def gradient(self, params, x, dy):
        db = dy.reshape(-1, self.channels).sum(axis=0) if self.bias else ()
        return DenseParams(self._weight_gradient(params.w, x, dy), db)

    def tangent(self, params, x, dparams, dx):
        dw, db = (None, None) if dparams is None else dparams
        dz = added(
            None if dx is None else self._convolved(params.w, dx),
            None if dw is None else self._convolved(cast(dw, x.dtype), x),
        )
        if not self.bias or db is None:
            return dz
        xp = namespace(x)
        return db + (xp.zeros((x.shape[0], *self._windows(x.shape[1:]).positions, 1), db.dtype) if dz is None else dz)

    # ---- the three products ------------------------------------------------------------------------------------------
    # On a GPU or TPU all three are convolutions. XLA on the CPU is slower at them than at products of patches, and uses
    # one core within a loop; so there the work is done by patches of blocks of examples, as on NumPy. Forwards a
    # convolution is faster where there are few channels, since patches are then gathered by a few numbers at a time.
    # Backwards, neighbouring windows are taken together where there are few outputs: a wider window has the outputs of
    # all of them, and weights that are W beside zeros. So fewer entries are copied, and products have more columns.
    # Not forwards, where 0 times an input that is not finite would reach windows that do not see the input.

    def _convolved(self, w, x):
        windows = self._windows(x.shape[1:])

        def as_convolution(w, x):
            return convolution(x, w, windows.stride, windows.padding, dilation=windows.dilation, groups=self.groups)

        def by_patches(w, x):
            z = _product(self._by_group(windows.patches(x)), self._matrices(w).swapaxes(1, 2))
            return z.swapaxes(0, 1).reshape(x.shape[0], *windows.positions, self.channels)

        few = is_jax(x) and w.shape[-1] < _FEW
        of_block, block = as_convolution if few else by_patches, (2 if few else 1) * self._block(w, windows, x)
        on_cpu = lambda w, x: in_blocks(lambda x: of_block(w, x), block, x)
        return by_platform(on_cpu, as_convolution, w, x)

    def _transposed(self, w, input_shape, dy):
        windows = self._windows(input_shape)

        def as_convolution(w, dy):
            w = w.reshape(self.groups, -1, *w.shape[1:])  # (G, O/G, *kernel, C/G)
            flipped = backend.jnp.flip(w, axis=tuple(range(2, w.ndim - 1))).swapaxes(1, -1)
            flipped = flipped.reshape(input_shape[-1], *flipped.shape[2:])  # (C, *kernel, O/G)
            stride, ones = windows.stride, (1,) * len(self.kernel)
            return convolution(dy, flipped, ones, windows.padding_of_dx, stride, windows.dilation, self.groups)

        def by_patches(w, dy):
            patches = _product(self._by_group(dy[..., None, :]), self._matrices(w))
            patches = patches.reshape(self.groups, *dy.shape[:-1], math.prod(joined.kernel), w.shape[-1])
            patches = namespace(patches).moveaxis(patches, 0, -2)  # (N, *positions, K, G, C/G)
            return joined.put(patches.reshape(*patches.shape[:-2], input_shape[-1]))

        def on_cpu(w, dy):
            w = _joined(w, windows, joined)
            dy = dy.reshape(dy.shape[0], *joined.positions, len(w))
            return in_blocks(lambda dy: by_patches(w, dy), self._block(w, joined, dy), dy)

        joined = windows.joined(self._neighbours(windows))
        return by_platform(on_cpu, as_convolution, w, dy)

    def _weight_gradient(self, w, x, dy):
        windows = self._windows(x.shape[1:])

        def as_convolution(x, dy):
            dilation, stride, padding = windows.dilation, windows.stride, windows.padding_of_dw
            return convolution(x, dy, dilation, padding, dilation=stride, groups=self.groups, over_examples=True)

        def by_patches(x, dy):
            patches, wide = joined.patches(x), at_least_float32(dy.dtype)
            if self.groups == 1:
                return contract(dy, _rows(patches), wide, spare=True)  # copies cost more
            delta = self._by_group(cast(dy, wide)[..., None, :])
            return delta.swapaxes(1, 2) @ self._by_group(cast(patches, wide))

        def on_cpu(x, dy):
            dy = dy.reshape(dy.shape[0], *joined.positions, times * self.channels)
            dw = sum_of_blocks(by_patches, self._block(w, joined, x), x, dy)
            return _apart(dw.reshape(times, self.channels, *joined.kernel, w.shape[-1]), windows)

        times = self._neighbours(windows)
        joined = windows.joined(times)
        return cast(by_platform(on_cpu, as_convolution, x, dy), w.dtype)

    def _block(self, w, windows, examples):
        """The number of examples whose patches have `_BLOCK_OF_PRODUCTS` bytes.

        On JAX at most half of the examples: XLA on the CPU computes what precedes a loop once, but what precedes
        patches once for each place that an entry goes to.
        """
        entries = math.prod((*windows.positions, *windows.kernel, w.shape[-1], self.groups))
        size = _BLOCK_OF_PRODUCTS // (4 * entries)
        n = examples.shape[0]
        return max(1, min(size, n // 2) if is_jax(examples) and isinstance(n, int) else size)

    def _neighbours(self, windows):
        """How many windows are taken as one: so many that they have up to `_MANY` outputs, and share most entries."""
        (*_, k), (*_, s), (*_, p), (*_, d) = windows.kernel, windows.stride, windows.positions, windows.dilation
        plain = self.groups == 1 and d == 1
        fits = lambda t: p % t == 0 and t * self.channels <= _MANY and (t - 1) * s <= 0.6 * k
        return next((t for t in (4, 2) if plain and fits(t)), 1)

    def _matrices(self, w):
        """W as a matrix for each group, (G, O/G, K·C/G)."""
        return w.reshape(self.groups, -1, w[0].size)

    def _by_group(self, rows):
        """(N, *positions, K, C) as (G, N·P, K·C/G)."""
        entries, channels = rows.shape[-2], rows.shape[-1] // self.groups
        rows = rows.reshape(math.prod(rows.shape[:-2]), entries, self.groups, channels)
        return namespace(rows).moveaxis(rows, 2, 0).reshape(self.groups, rows.shape[0], entries * channels)

    def _windows(self, input_shape):
        windows = windows_over(self, input_shape)
        if input_shape[-1] % self.groups:
            raise ShapeError(f"expected a number of channels that {self.groups} groups divide, got {input_shape[-1]}")
        return windows


def _rows(patches):
    """(..., K, C) as (..., K·C)."""
    return patches.reshape(*patches.shape[:-2], patches.shape[-2] * patches.shape[-1])


def _joined(w, windows, joined):
    """W (O, *kernel, C) for windows taken t at a time, (t O, *kernel, C): W where each of them lies, 0 around it."""
    wider, *ends = joined.kernel[-1] - windows.kernel[-1], *[(0, 0)] * w.ndim
    pads = [(*ends[:-2], (at, wider - at), ends[-1]) for at in range(0, wider + 1, windows.stride[-1])]
    return namespace(w).concatenate([namespace(w).pad(w, pad) for pad in pads])


def _apart(dw, windows):
    """The transpose of `_joined`, of dW (..., t, O, *kernel, C): the sum of the entries that belong to each window."""
    dw, step, k = namespace(dw).moveaxis(dw, -3 - len(windows.kernel), 0), windows.stride[-1], windows.kernel[-1]
    return sum(dw[i, ..., i * step : i * step + k, :] for i in range(len(dw)))


def _product(a, b):
    """`a @ b`, (G, M, K), (G, K, L) -> (G, M, L); of one group without the axis, which makes XLA's slower."""
    return (a[0] @ b[0])[None] if len(a) == 1 else a @ b


def convolution(x, w, stride, padding, spread=None, dilation=None, groups=1, over_examples=False) -> Any:
    """`jax.lax.conv_general_dilated` of x (N, *sizes, C) and w (O, *kernel, C/G).

    Args:
        x, w: arrays of JAX.
        stride, padding: for each axis.
        spread: the distance at which the entries of x are placed, with zeros between them. Default: 1.
        dilation: the same for w. Default: 1.
        groups: G. Default: 1.
        over_examples: whether the first and the last axis change places in x, w and the result, so that the sum is over
            the examples: x (N, *sizes, C) and w (N, *kernel, O) give (O, *sizes, C/G). Default: False.
    """
    lax, last = backend.jax.lax, x.ndim - 1
    sizes, kernel = tuple(range(1, last)), tuple(range(last - 1))
    if over_examples:
        axes = of_w = (last, 0, *sizes)
    else:  # within loops XLA on the CPU is 30 times slower at kernels whose last axes are not C and O
        w, axes, of_w = backend.jnp.moveaxis(w, 0, -1), (0, last, *sizes), (last, last - 1, *kernel)
    return lax.conv_general_dilated(
        x,
        w,
        stride,
        padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=lax.ConvDimensionNumbers(axes, of_w, axes),
        feature_group_count=1 if over_examples else groups,
        batch_group_count=groups if over_examples else 1,
        preferred_element_type=at_least_float32(x.dtype) if over_examples else None,
    )
