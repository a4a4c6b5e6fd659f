"""Automatic differentiation of scalars in plain Python, built on `math` alone: for reading, checking and learning.

A function computes its result by elementary operations v = φ(u₁, u₂, ...), the nodes of a graph. With v̄ = ∂y/∂v for
the result y, reverse mode is the chain rule applied from the result back to the inputs:

    ȳ = 1        ū = Σ v̄ ∂φ/∂u        summed over all operations v that use u

In reverse topological order each v̄ is complete before it is passed on, so one pass gives the derivatives with respect
to all inputs, at about the cost of the function itself. Backpropagation is this pass over a network, with v̄ called δ.

Sources: S. Linnainmaa, "Taylor expansion of the accumulated rounding error" (1976); A. Griewank, A. Walther (2008),
ch. 3.

>>> x, y = 0.5, 2.0
>>> grad(lambda x: sin(x) ** 2)(x) == 2 * math.sin(x) * math.cos(x)
True
>>> grad(lambda x: (5 * x + 3) ** 4)(x) == 20 * (5 * x + 3) ** 3
True
>>> value_and_grad(lambda x, y: x**2 + y**3)(x, y)  # 2x and 3y²
(8.25, (1.0, 12.0))

Errors are those of Python's floats: 1 / x at 0 raises ZeroDivisionError, exp(1000) raises OverflowError.
"""

import math

__all__ = [
    "Value",
    "cos",
    "difference_quotient",
    "erf",
    "exp",
    "grad",
    "gradients",
    "log",
    "maximum",
    "relu",
    "sigmoid",
    "sin",
    "sqrt",
    "tan",
    "tanh",
    "value_and_grad",
]


def _number(x):
    if not isinstance(x, (Value, int, float)):
        raise TypeError(f"expected a number or a Value, got {x!r}")
    return x.value if isinstance(x, Value) else x


def _node(v, *edges):
    """The result of an operation, with edges to the operands that are Values; a plain number if there are none."""
    edges = tuple([(u, slope) for u, slope in edges if isinstance(u, Value)])
    return Value(v, edges) if edges else v


def _function(phi, slope):
    """The function of a Value or plain number that computes y = φ(x), with the derivative slope(x, y)."""

    def function(x):
        number = _number(x)
        try:
            y = phi(number)
        except ValueError:
            raise ValueError(f"{phi.__name__}: not defined at {number}") from None
        return _node(y, (x, slope(number, y)))

    return function


def _operator(formula):
    """The same for two operands, from formula(a, b) = (v, ∂v/∂a, ∂v/∂b), and its reflected form, for 2 * v."""

    def operator(a, b):
        v, by_a, by_b = formula(_number(a), _number(b))
        return _node(v, (a, by_a), (b, by_b))

    return operator, lambda b, a: operator(a, b)


def _sigmoid(x):
    e = math.exp(-abs(x))  # at most 1: it never overflows
    return (e if x < 0 else 1.0) / (1 + e)


def _power(a, b):
    if a < 0 and b % 1 != 0:
        raise ValueError(f"a ** b: expected a of at least 0 or a whole number b, got {a} ** {b}")
    by_a = 0.0 if b == 0 else math.inf if a == 0 and 0 < b < 1 else b * a ** (b - 1)
    return a**b, by_a, a**b * math.log(a) if a > 0 else 0.0 if a == 0 else math.nan


class Value:
    """A number v that records how it was computed: its `edges` are pairs (u, ∂v/∂u), one for each operand u.

    It is immutable and compares by its number. `float` and `math.sin` reject it, since they would lose the edges.

    Args:
        value: the number v.
        edges: pairs (u, ∂v/∂u); default (), an input.

    >>> 2 * Value(3.0) + 1
    Value(7.0)
    """

    __slots__ = ("edges", "value")

    def __init__(self, value, edges=()):
        self.value, self.edges = value, edges

    def __repr__(self):
        return f"Value({self.value!r})"

    # The value of each operation, beside its derivatives with respect to the operands.
    __add__, __radd__ = _operator(lambda a, b: (a + b, 1.0, 1.0))
    __sub__, __rsub__ = _operator(lambda a, b: (a - b, 1.0, -1.0))
    __mul__, __rmul__ = _operator(lambda a, b: (a * b, b, a))
    __truediv__, __rtruediv__ = _operator(lambda a, b: (a / b, 1 / b, -a / b / b))
    __pow__, __rpow__ = _operator(_power)
    __neg__ = _function(lambda x: -x, lambda x, y: -1.0)
    __abs__ = _function(abs, lambda x, y: float((x > 0) - (x < 0)))  # at 0 it is 0

    __eq__ = lambda a, b: _number(a) == _number(b)
    __lt__ = lambda a, b: a.value < _number(b)
    __le__ = lambda a, b: a.value <= _number(b)
    __gt__ = lambda a, b: a.value > _number(b)
    __ge__ = lambda a, b: a.value >= _number(b)
    __bool__ = lambda a: a.value != 0
    __hash__ = lambda self: hash(_number(self))


# Functions of a Value or a number: φ(x) and φ'(x).
exp = _function(math.exp, lambda x, y: y)
"""eˣ, of a `Value` or a number; the derivative is eˣ."""
log = _function(math.log, lambda x, y: 1 / x)
"""The natural logarithm; the derivative is 1/x."""
sqrt = _function(math.sqrt, lambda x, y: 0.5 / y if y else math.inf)
"""√x; the derivative is 1 / (2√x), at 0 infinite."""
sin = _function(math.sin, lambda x, y: math.cos(x))
"""The sine; the derivative is the cosine."""
cos = _function(math.cos, lambda x, y: -math.sin(x))
"""The cosine; the derivative is −sin x."""
tan = _function(math.tan, lambda x, y: 1 + y * y)
"""The tangent; the derivative is 1 + tan² x."""
tanh = _function(math.tanh, lambda x, y: (1 - y) * (1 + y))
"""The hyperbolic tangent; the derivative is 1 − tanh² x."""
sigmoid = _function(_sigmoid, lambda x, y: y * _sigmoid(-x))
"""σ(x) = 1 / (1 + e⁻ˣ); the derivative is σ(x) σ(−x)."""
relu = _function(lambda x: 0.0 if x <= 0 else x, lambda x, y: 1.0 if x > 0 else 0.0)
"""max(x, 0); the derivative is 1 for x > 0, else 0, at 0 too."""
erf = _function(math.erf, lambda x, y: 2 / math.sqrt(math.pi) * math.exp(-x * x))
"""The error function; the derivative is 2 e^(−x²) / √π."""
maximum = _operator(lambda a, b: (a, 1.0, 0.0) if a > b else (b, 0.0, 1.0) if a < b else (a / 2 + b / 2, 0.5, 0.5))[0]
"""The larger of two numbers, which has the derivative 1; if they are equal, each has the derivative ½."""


def gradients(output, inputs):
    """Compute ∂output/∂input for all inputs: the reverse pass.

    Args:
        output: a Value or a number.
        inputs: Values in nested lists or tuples. An input may be any node of the graph, including an intermediate one:
            at a neuron's z the derivative is its error δ.

    Returns:
        The derivatives, plain numbers, nested as the inputs are.

    >>> x = Value(3.0)
    >>> z = 2 * x
    >>> gradients(z * z, [x, z])
    [24.0, 12.0]
    """
    output = output if isinstance(output, Value) else Value(_number(output))
    order, seen, stack = [], set(), [(output, False)]
    while stack:  # topological order: a node comes after all its operands; no recursion, so a graph may be deep
        v, operands_done = stack.pop()
        if operands_done:
            order.append(v)
        elif id(v) not in seen:
            seen.add(id(v))
            stack.append((v, True))
            stack.extend((u, False) for u, _ in v.edges)
    bar = {id(v): 0.0 for v in order} | {id(output): 1.0}
    for v in reversed(order):
        for u, slope in v.edges:
            bar[id(u)] += bar[id(v)] * slope
    return _map(lambda u: bar.get(id(u), 0.0), inputs)


def value_and_grad(f):
    """Make the function that computes f and its gradient.

    Args:
        f: a function of numbers, or of numbers in nested lists or tuples.

    Returns:
        `(*args) -> (value, grads)`, where grads is nested as the argument is; for several arguments, it is a tuple with
        one entry for each. The gradients are plain numbers, which cannot be differentiated again.

    >>> value_and_grad(lambda w: w[0] * w[1])([2, 5])
    (10.0, [5.0, 2.0])
    """

    def run(*args):
        inputs = _map(_input, args)
        output = f(*_map(lambda u: u, inputs))  # a copy, so that f may change its lists
        grads = gradients(output, inputs)
        return float(_number(output)), grads[0] if len(args) == 1 else grads  # type: ignore[index]

    return run


def grad(f):
    """Make the function that computes the gradient of f alone: `value_and_grad` without the value.

    Args:
        f: a function of Values, in any number of arguments.

    Returns:
        The function of the same arguments that returns the derivatives.

    >>> grad(lambda x: x * x)(3.0)
    6.0
    """
    return lambda *args: value_and_grad(f)(*args)[1]


def _input(x):
    if not isinstance(x, (int, float)):
        raise TypeError(f"expected a number, or numbers in nested lists or tuples, got {x!r}")
    return Value(float(x))


def _map(function, tree):
    if not isinstance(tree, (list, tuple)):
        return function(tree)
    return getattr(tree, "_make", type(tree))([_map(function, branch) for branch in tree])


def difference_quotient(f, x: float, h: float = 1e-6, one_sided: bool = False) -> float:
    """Estimate f'(x) from values of f alone.

        (f(x + h) − f(x − h)) / 2h        one-sided: (f(x + h) − f(x)) / h

    The error is about h² |f'''| / 6 + ε |f| / h, or one-sided h |f''| / 2 + 2 ε |f| / h, with ε = 2.2·10⁻¹⁶. The first
    term calls for a small h, but the second rules out a tiny one: the values of f agree in more and more digits, which
    the subtraction cancels, leaving only their rounding. At best ten digits are right, near h = (3 ε |f / f'''|)^⅓ ≈
    10⁻⁵; one-sided eight, near h = 2 √(ε |f / f''|) ≈ 10⁻⁸.

    Args:
        f: a function of a number.
        x: the point, a number.
        h: the step, greater than 0. Default: 10⁻⁶.
        one_sided: whether to use the one-sided quotient. Default: False.

    Returns:
        The estimate.

    >>> [f"{abs(difference_quotient(math.exp, 0.0, h) - 1):.0e}" for h in (1e-1, 1e-5, 1e-13)]
    ['2e-03', '1e-11', '3e-04']
    """
    if not (isinstance(x, (int, float)) and isinstance(h, (int, float))):
        raise TypeError(f"expected plain numbers x and h, got {x!r} and {h!r}")
    if not x - h < x < x + h:
        raise ValueError(f"h: expected a step above 0 that changes x = {x}, got {h}")
    return (f(x + h) - f(x)) / h if one_sided else (f(x + h) - f(x - h)) / (2 * h)
