"""Two static things that are equal may share one compiled program, so equality has to be trustworthy."""

import collections
import math
from dataclasses import FrozenInstanceError, dataclass, field
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest

import fnn
from fnn.backend import Held
from fnn.errors import ArgumentError, FnnError, KindError
from fnn.static import Choice, Interval, Static, check_ranges, check_static, declared, namedtuples, registered


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True)
class Knob(Static):
    """One field of each kind that is treated in a way of its own."""

    real: float = 0.5
    count: int = 2
    flag: bool = False
    reals: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()
    limit: float | None = None
    name: str = "knob"
    thing: Any = None


@dataclass(frozen=True)
class Plain(Static):
    value: float


@dataclass(frozen=True)
class Times(fnn.Layer):
    factor: float = 1.0

    def forward(self, params, x, key=None):
        return self.factor * x, ()

    def backward(self, params, residuals, dy):
        return self.factor * dy


BASES = [Plain, Times]


def same(a, b):
    """Whether two values are equal in all their types too: 1, 1.0 and True are three things."""
    if type(a) is not type(b):
        return False
    return all(map(same, a, b)) and len(a) == len(b) if isinstance(a, tuple) else a == b


# ---- which classes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_a_subclass_without_decorator_is_refused(base):
    class Undecorated(base):
        pass

    with pytest.raises(KindError, match=r"Undecorated: expected a frozen dataclass; write @dataclass\(frozen=True\)"):
        Undecorated(2.0)


def test_a_subclass_without_decorator_of_a_layer_with_all_its_methods_is_refused():
    class Minus(Times):
        def forward(self, params, x, key=None):
            return -self.factor * x, ()

    with pytest.raises(KindError, match="would compare equal to its parent and share the parent's compiled program"):
        Minus(2.0)


def test_a_dataclass_that_is_not_frozen_is_refused():
    @dataclass
    class Thawed(Static):
        value: float

    with pytest.raises(KindError, match="Thawed: expected a frozen dataclass"):
        Thawed(1.0)
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):

        @dataclass
        class ThawedLayer(Times):
            pass


def test_a_dataclass_without_equality_is_refused():
    @dataclass(frozen=True, eq=False)
    class Loner(Times):
        pass

    with pytest.raises(KindError, match="Loner: expected a frozen dataclass"):
        Loner(1.0)


def test_what_skipped_the_check_is_found_by_check_static():
    class Sly(Times):
        def __post_init__(self):
            pass

    with pytest.raises(KindError, match="Sly: expected a frozen dataclass"):
        check_static(Sly())
    with pytest.raises(KindError, match="Sly: expected a frozen dataclass"):
        fnn.Serial((Sly(),))
    check_static(Times())


def test_a_decorated_subclass_is_not_equal_to_its_parent():
    @dataclass(frozen=True)
    class Minus(Times):
        pass

    assert Minus(2) == Minus(2.0)
    assert Minus(2) != Times(2)
    assert len({Minus(2), Times(2)}) == 2


# ---- which values ----------------------------------------------------------------------------------------------------

COERCED = [  # field, what is given, what it becomes
    ("real", 1, 1.0),
    ("real", np.float32(0.5), 0.5),
    ("real", np.int64(3), 3.0),
    ("real", Fraction(1, 4), 0.25),
    ("real", math.inf, math.inf),
    ("count", np.int64(3), 3),
    ("count", np.uint8(3), 3),
    ("flag", 1, True),
    ("flag", 0, False),
    ("flag", 1.0, True),
    ("flag", np.True_, True),
    ("limit", 1, 1.0),
    ("limit", None, None),
    ("name", np.str_("dial"), "dial"),
    ("reals", (1, 2.0, np.float32(3)), (1.0, 2.0, 3.0)),
    ("counts", (1, np.int32(2)), (1, 2)),
    ("rows", ((1, 2), (3,)), ((1.0, 2.0), (3.0,))),
    ("thing", np.int32(3), 3),
    ("thing", (1, (np.float64(2.0), "a"), None), (1, (2.0, "a"), None)),
    ("thing", Point(np.int32(1), (np.float32(2),)), Point(1, (2.0,))),
]


@pytest.mark.parametrize(("name", "given", "kept"), COERCED, ids=[f"{n}-{g!r}" for n, g, _ in COERCED])
def test_numbers_are_coerced_to_what_the_annotation_names(name, given, kept):
    knob = Knob(**{name: given})
    assert same(getattr(knob, name), kept)
    assert knob == Knob(**{name: kept})
    assert hash(knob) == hash(Knob(**{name: kept}))
    assert repr(knob) == repr(Knob(**{name: kept}))


def test_annotations_may_be_strings():
    @dataclass(frozen=True)
    class Later(Static):
        real: "float"
        count: "int"
        flag: "bool"
        reals: "tuple[float, ...]"

    later = Later(1, np.int64(2), 1, (3, 4))
    assert same((later.real, later.count, later.flag, later.reals), (1.0, 2, True, (3.0, 4.0)))
    with pytest.raises(KindError, match=r"Later.count: expected an integer, got 2.0"):
        Later(1, 2.0, 1, ())


REFUSED = [  # field, what is given, error, message
    ("real", math.nan, ArgumentError, r"Knob.real: expected a number, got nan \(nan is not equal to itself\)"),
    ("real", np.float32("nan"), ArgumentError, r"Knob.real: expected a number, got nan"),
    ("real", True, KindError, r"Knob.real: expected a number, got True"),
    ("real", np.True_, KindError, r"Knob.real: expected a number, got True"),
    ("real", "1", KindError, r"Knob.real: expected a number, got '1'"),
    ("real", None, KindError, r"Knob.real: expected a number, got None"),
    ("real", 1j, KindError, r"Knob.real: expected a number, got 1j"),
    ("real", (1.0,), KindError, r"Knob.real: expected a number, got \(1.0,\)"),
    ("real", np.array(1.0), KindError, r"Knob.real: expected a number, got array\(1.\)"),
    ("count", 2.0, KindError, r"Knob.count: expected an integer, got 2.0"),
    ("count", True, KindError, r"Knob.count: expected an integer, got True"),
    ("count", "2", KindError, r"Knob.count: expected an integer, got '2'"),
    ("count", np.array(2), KindError, r"Knob.count: expected an integer, got array\(2\)"),
    ("flag", 2, KindError, r"Knob.flag: expected True or False, got 2"),
    ("flag", "no", KindError, r"Knob.flag: expected True or False, got 'no'"),
    ("flag", None, KindError, r"Knob.flag: expected True or False, got None"),
    ("flag", math.nan, KindError, r"Knob.flag: expected True or False, got nan"),
    ("flag", np.array([True, False]), KindError, r"Knob.flag: expected True or False, got array"),
    ("limit", math.nan, ArgumentError, r"Knob.limit: expected a number, got nan"),
    ("reals", (1.0, math.nan), ArgumentError, r"Knob.reals\[1\]: expected a number, got nan"),
    ("reals", (1.0, True), KindError, r"Knob.reals\[1\]: expected a number, got True"),
    ("reals", [1.0], KindError, r"Knob.reals: expected a tuple, got a list: \[1.0\]"),
    ("counts", (1, 2.0), KindError, r"Knob.counts\[1\]: expected an integer, got 2.0"),
    ("rows", ((1.0,), [2.0]), KindError, r"Knob.rows\[1\]: expected a tuple, got a list"),
    ("thing", math.nan, ArgumentError, r"Knob.thing: expected a number, got nan"),
    ("thing", [1], KindError, r"Knob.thing: expected a tuple, got a list: \[1\]"),
    ("thing", (1, [2]), KindError, r"Knob.thing\[1\]: expected a tuple, got a list"),
    ("thing", {"a": 1}, KindError, r"Knob.thing: expected a hashable value, got \{'a': 1\}"),
    ("thing", {1}, KindError, r"Knob.thing: expected a hashable value, got \{1\}"),
    ("thing", np.zeros(2), KindError, r"Knob.thing: expected a static value, got an array"),
    ("thing", (0, (np.zeros(2),)), KindError, r"Knob.thing\[1\]\[0\]: expected a static value, got an array"),
    ("thing", Point(1, np.zeros(2)), KindError, r"Knob.thing\[1\]: expected a static value, got an array"),
    ("thing", Point(1, math.nan), ArgumentError, r"Knob.thing\[1\]: expected a number, got nan"),
]


@pytest.mark.parametrize(
    ("name", "given", "error", "message"), REFUSED, ids=[f"{name}-{given!r}" for name, given, *_ in REFUSED]
)
def test_what_has_no_trustworthy_equality_is_refused(name, given, error, message):
    with pytest.raises(error, match=message):
        Knob(**{name: given})


@pytest.mark.parametrize("name", ["real", "count", "flag", "thing"])
def test_jax_arrays_and_tracers_are_refused(name, needs_jax):
    with pytest.raises(KindError, match=rf"Knob.{name}: expected "):
        Knob(**{name: needs_jax.numpy.zeros(())})
    with pytest.raises(KindError, match=rf"Knob.{name}: expected "):
        needs_jax.jit(lambda x: Knob(**{name: x}).real)(1.0)


# ---- as values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_equal_fields_make_equal_things(base):
    assert base(2) == base(2.0) == base(np.float32(2))
    assert len({base(2), base(2.0), base(np.int8(2))}) == 1
    assert base(2) != base(3)
    assert repr(base(2)) == repr(base(2.0))


def test_things_nest_and_compare_by_value():
    one, other = (Knob(thing=(Times(2), (Plain(number), np.sin))) for number in (1, 1.0))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Knob(thing=(Times(2), (Plain(2), np.sin)))


@pytest.mark.parametrize("base", BASES)
def test_a_field_cannot_be_changed(base):
    thing = base(2.0)
    with pytest.raises(FrozenInstanceError):
        thing.value = 3.0
    with pytest.raises(FrozenInstanceError):
        del thing.value


def test_things_are_printed_as_they_are_written():
    @dataclass(frozen=True)
    class Named(Static):
        size: int
        rate: float = 0.5
        inner: Any = field(default=None, kw_only=True)

    assert repr(Named(3)) == "Named(3)"
    assert repr(Named(3, 1)) == "Named(3, rate=1.0)"
    assert repr(Named(3, inner=Plain(2))) == "Named(3, inner=Plain(2.0))"


def test_a_class_may_check_its_own_fields_too():
    @dataclass(frozen=True)
    class Even(Static):
        number: int

        def __post_init__(self):
            super().__post_init__()
            if self.number % 2:
                raise ArgumentError(f"number: expected an even one, got {self.number}")

    assert Even(np.int64(2)) == Even(2)
    with pytest.raises(FnnError, match="expected an even one, got 3"):
        Even(3)


# ---- declared ranges -------------------------------------------------------------------------------------------------

INSIDE = [  # interval, whether the number is an int, what lies within it
    *(("[0, 1)", False, x) for x in (0, 0.0, 0.5, np.float32(0.25), 1 - 1e-16)),
    *(("(0, 1]", False, x) for x in (1e-300, 1)),
    *(("(-∞, ∞)", False, x) for x in (-1e308, 0, 1e308)),
    *(("(0, ∞]", False, x) for x in (1, math.inf)),
    *(("[1, 5]", True, x) for x in (1, 5, np.int64(3))),
    *(("(1, 5)", True, x) for x in (2, 4)),
    *(("(0.5, ∞)", True, x) for x in (1, 10**6)),
    ("(-∞, 3]", True, -(10**6)),
]
OUTSIDE = [
    *(("[0, 1)", False, x) for x in (-1e-300, 1, 2.0, math.inf, math.nan)),
    *(("(0, 1]", False, x) for x in (0, 1 + 1e-15)),
    *(("(-∞, ∞)", False, x) for x in (math.inf, -math.inf, math.nan)),
    *(("(0, ∞]", False, x) for x in (0, -math.inf, math.nan)),
    *(("[1, 5]", True, x) for x in (0, 6)),
    *(("(1, 5)", True, x) for x in (1, 5)),
    ("(0.5, ∞)", True, 0),
    ("(-∞, 3]", True, 4),
]


@pytest.mark.parametrize(("text", "whole", "value"), INSIDE, ids=str)
def test_a_number_within_its_interval_is_given_back(text, whole, value):
    found = Interval(text).check("x", value, whole)
    assert found == value
    assert type(found) is (int if whole else float)


@pytest.mark.parametrize(("text", "whole", "value"), OUTSIDE, ids=str)
def test_a_number_outside_its_interval_is_refused_by_name(text, whole, value):
    with pytest.raises(ArgumentError, match="x"):
        Interval(text).check("x", value, whole)


@pytest.mark.parametrize("text", ["", "0, 1", "[0 1)", "[0, 1, 2)", "{0, 1}"])
def test_text_that_is_not_an_interval_is_refused(text):
    with pytest.raises(ArgumentError, match="Interval: expected text such as"):
        Interval(text)


class Dial(NamedTuple):
    rate: Annotated[Any, Interval("[0, 1)")] = 0.5
    steps: Annotated[int, Interval("[1, ∞)")] = 1
    kind: Choice[str] = "plain"
    inner: Any = None


def test_what_is_declared_beside_a_field_is_found():
    fields = declared(Dial)
    assert [fields[name].interval for name in Dial._fields] == [Interval("[0, 1)"), Interval("[1, ∞)"), None, None]
    assert [fields[name].whole for name in Dial._fields] == [False, True, False, False]
    assert [fields[name].choice for name in Dial._fields] == [False, False, True, False]


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        (Dial(1.0), "Dial.rate = 1"),
        (Dial(np.array([0.5, 2.0])), "Dial.rate = 2"),
        (Dial({"w": (0.5, -1)}), r"Dial.rate\['w'\]\[1\] = -1"),
        (Dial(steps=0), "Dial.steps: expected an integer of at least 1, got 0"),
        (Dial(steps=Held(0)), "Dial.steps: expected an integer of at least 1, got 0"),
        (Dial(inner=Dial(7)), "Dial.inner.rate = 7"),
        (Dial(inner=[None, (Dial(7),)]), r"Dial.inner\[1\]\[0\].rate = 7"),
    ],
    ids=range(7),
)
def test_ranges_of_a_tuple_are_checked_wherever_the_number_is(dial, message):
    with pytest.raises(ArgumentError, match=message):
        check_ranges(dial)


def test_ranges_of_a_tuple_hold_and_what_is_traced_is_passed_over(needs_jax):
    for dial in (Dial(), Dial(None), Dial((0.1, np.float32(0.2))), Dial(Held(0.5)), Dial(inner=Dial(0.1))):
        check_ranges(dial)
    needs_jax.jit(lambda rate: check_ranges(Dial(rate)))(7.0)


def test_ranges_of_a_static_class_hold_for_its_children_too():
    @dataclass(frozen=True)
    class Bounded(Static):
        rate: Annotated[float, Interval("[0, 1)")] = 0.5

    @dataclass(frozen=True)
    class Child(Bounded):
        size: Annotated[int, Interval("[1, ∞)")] = 1

    assert Child(0, np.int32(2)) == Child(0.0, 2)
    for wrong in ({"rate": 1}, {"size": 0}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            Child(**wrong)


# ---- the registry ----------------------------------------------------------------------------------------------------


def test_a_class_is_registered_by_being_defined_and_a_new_definition_replaces_the_old():
    def define():
        @dataclass(frozen=True)
        class Fresh(Times):
            pass

        class Tuple(NamedTuple):
            x: Any

        return Fresh, Tuple

    before = set(registered())
    old = define()
    new = define()
    name = f"{__name__}.{new[0].__qualname__}"
    assert set(registered()) - before == {name}
    assert registered()[name] is registered(fnn.Layer)[name] is new[0] is not old[0]
    assert name not in registered(fnn.Loss)
    assert namedtuples()[f"{__name__}.{new[1].__qualname__}"] is new[1] is not old[1]


def test_fnns_own_classes_are_registered():
    assert {"Dense", "Serial", "Relu", "LayerNorm"} <= {cls.__name__ for cls in registered(fnn.Layer).values()}
    assert {"Quadratic", "Huber"} <= {cls.__name__ for cls in registered(fnn.Loss).values()}
    assert {"Dense", "Quadratic", "Constant"} <= {cls.__name__ for cls in registered().values()}
    found = set(namedtuples().values())
    assert {fnn.Adam, fnn.TrainState, fnn.DenseParams, fnn.schedules.Constant, Point} <= found
    assert not {tuple, collections.OrderedDict} & found
    assert not any(issubclass(cls, Static) for cls in found)
