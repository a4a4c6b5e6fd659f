"""A rule of the user's runs wherever fnn's own does: its numbers are leaves, its choices static, its state settled."""

from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest
from helpers import THOROUGH, blobs, key, run_problem
from helpers_training import Smoothed, compilations, on_numpy_at_least, same

import fnn
from fnn import errors, trees
from fnn.rules import Backprop, Choice, ForwardGradient, PredictiveCoding, RuleOutput

NET, LOSS = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy()


def begin(rule, backend="numpy", dtype=np.float32):
    return run_problem(backend, rule=rule, dtype=dtype)[2]


# ---- a rule of the user's runs everywhere ----------------------------------------------------------------------------


def test_the_default_rule_is_backpropagation():
    plain, named = begin(None), begin(Backprop())
    assert plain.rule == named.rule == Backprop()
    ours, theirs = (fnn.train(NET, LOSS, s, blobs(), epochs=1, batch_size=7) for s in (plain, named))
    same(ours, theirs)


def test_a_rule_of_ones_own_is_what_it_says_step_by_step():
    state, (x, y) = begin(Smoothed(0.5, 0.1)), blobs()
    trained, history = fnn.train(NET, LOSS, state, (x, y), steps=3, batch_size=50)
    params, mean = state.params, trees.map(np.zeros_like, state.params)
    for t in range(3):
        noise = fnn.random.normal(fnn.random.fold_in(fnn.random.fold_in(state.key, 3), t), ())
        value, grads = fnn.value_and_grad(NET, LOSS)(params, x, y)
        mean = trees.map(lambda m, g: 0.5 * m + 0.5 * (g + np.float32(0.1) * noise), mean, grads)  # noqa: B023
        params = trees.map(lambda p, m: p - np.float32(0.1) * m, params, mean)
        assert history["loss"][t] == pytest.approx(value, rel=1e-5)
        assert history["noise"][t] == pytest.approx(noise)
    same(trained.params, params, 1e-5)
    same(trained.rule_state, (mean, np.int32(3)), 1e-5)
    assert history["steps"].tolist() == [0, 1, 2]


@on_numpy_at_least
def test_it_runs_in_fit_with_validation_and_telemetry(backend):
    data, how = blobs(), {"epochs": 2, "batch_size": 7, "validation": blobs(20), "telemetry": 10}
    fitted, history = fnn.fit(NET, LOSS, fnn.Sgd(0.1), data, key=key(backend), rule=Smoothed(0.5, 0.1, True), **how)
    trained, steps = fnn.train(NET, LOSS, begin(Smoothed(0.5, 0.1, True), backend), data, epochs=2, batch_size=7)
    same(fitted.params, trained.params, 1e-6)
    same(fitted.rule_state, trained.rule_state, 1e-6)
    assert set(history) == {"loss", "validation_loss", "noise", "steps", "telemetry"}
    np.testing.assert_allclose(history["noise"], np.asarray(steps["noise"]).reshape(2, 8).mean(axis=1), rtol=1e-6)
    assert set(np.unique(np.asarray(steps["noise"]))) == {-1.0, 1.0}, "the choice"


def test_it_makes_the_same_run_on_both_backends_and_other_numbers_compile_nothing(needs_jax):
    for signs in (True, False) if THOROUGH else (True,):
        ours, theirs = (
            fnn.train(NET, LOSS, begin(Smoothed(0.5, 0.1, signs), b), blobs(), epochs=2, batch_size=7)
            for b in ("jax", "numpy")
        )
        same(ours[0].params, theirs[0].params, 1e-4)
        same(ours[1], theirs[1], 1e-4)
    with compilations() as compiled:
        fnn.train(NET, LOSS, begin(Smoothed(0.7, 0.2, signs), "jax"), blobs(), epochs=2, batch_size=7)
        assert compiled == []
        if THOROUGH:
            fnn.train(NET, LOSS, begin(Smoothed(0.7, 0.2, not signs), "jax"), blobs(), epochs=3, batch_size=7)
            assert compiled != [], "another program"


def test_choices_are_no_leaves_and_numbers_are_strong_arrays(backend):
    xp = np if backend == "numpy" else fnn.backend.jax.numpy
    state = begin(Smoothed(0.5, 1, True), backend)
    assert [float(leaf) for leaf in trees.leaves(state.rule)] == [0.5, 1.0]
    assert all(leaf.dtype == np.float32 and leaf.shape == () for leaf in trees.leaves(state.rule))
    assert all(isinstance(leaf, xp.ndarray | np.generic) for leaf in trees.leaves(state.rule))
    assert state.rule.signs == fnn.backend.Held(True)
    again = fnn.init_state(NET, fnn.Sgd(0.1), key(backend), (6,), rule=state.rule)
    assert again.rule.signs == state.rule.signs, "a rule that is prepared already is taken as it is"


@pytest.mark.thorough(backend="jax")
def test_a_sweep_over_a_rules_numbers_is_each_run_alone(backend):
    def run(decay):
        state = fnn.init_state(NET, fnn.Sgd(0.1), key(backend), (6,), rule=Smoothed(decay, 0.1))
        return fnn.train(NET, LOSS, state, blobs(), steps=3, batch_size=25)

    decays = np.float32([0.0, 0.5, 0.9])
    states, _ = fnn.sweep(run, decays)
    for i, decay in enumerate(decays):
        alone, _ = fnn.train(NET, LOSS, begin(Smoothed(decay, 0.1)), blobs(), steps=3, batch_size=25)
        same(trees.map(lambda leaf, i=i: leaf[i], states.params), alone.params, 1e-4)
        same(trees.map(lambda leaf, i=i: leaf[i], states.rule_state), alone.rule_state, 1e-4)


def test_a_rule_is_given_the_nominal_batch_size_and_only_the_keys_that_are_needed():
    seen = []

    class Looking(NamedTuple):
        def init(self, problem, params, key):
            seen.append((problem.net, problem.loss, key.tolist()))
            return ()

        def gradient(self, problem, params, state, batch, keys):
            seen.append((batch.size, len(batch.x), batch.weights, keys))
            return Backprop().gradient(problem, params, state, batch, keys)

    state = begin(Looking())
    assert seen == [(NET, None, fnn.random.fold_in(state.key, 4).tolist())]
    fnn.train(NET, LOSS, state, blobs(), epochs=1, batch_size=30)
    first, last = seen[1:]
    assert (first[:3], last[:2]) == ((30, 30, None), (30, 30))
    assert last[2].sum() == 20, "the batch is filled up with weight 0"
    assert first[3].net is None, "nothing in the network draws"
    for t, (*_, keys) in enumerate(seen[1:]):
        assert keys.rule.tolist() == fnn.random.fold_in(fnn.random.fold_in(state.key, 3), t).tolist()


# ---- its state -------------------------------------------------------------------------------------------------------


def stateful(first, following, metrics=None, value=None):
    """A rule with that first state, `following(state)` after each step, and those metrics."""

    class Stateful(NamedTuple):
        def init(self, problem, params, key):
            return first

        def gradient(self, problem, params, state, batch, keys):
            output = Backprop().gradient(problem, params, (), batch, keys)
            return RuleOutput(output.value, output.grads, following(state), metrics or {})

    return Stateful()


def step(rule, backend="numpy", steps=2):
    return fnn.train(NET, LOSS, begin(rule, backend), blobs(), steps=steps, batch_size=50)


@on_numpy_at_least
def test_the_state_keeps_the_dtypes_that_it_began_with(backend):
    first = {"mean": np.zeros(3, np.float32), "count": np.int32(0)}
    state, _ = step(stateful(first, lambda s: {"mean": s["mean"] + np.float64(1), "count": s["count"] + 1.0}), backend)
    assert (state.rule_state["mean"].dtype, state.rule_state["count"].dtype) == (np.float32, np.int32)
    assert (state.rule_state["mean"].tolist(), int(state.rule_state["count"])) == ([2, 2, 2], 2)


@pytest.mark.thorough(backend="jax")
def test_a_state_of_plain_numbers_becomes_arrays_with_strong_types(backend):
    state, _ = step(stateful((0, 1.5), lambda s: (s[0] + 1, s[1] / 2)), backend)
    assert [float(leaf) for leaf in state.rule_state] == [2, 0.375]
    begun = begin(stateful((0, 1.5), lambda s: s), backend).rule_state
    assert [leaf.dtype for leaf in state.rule_state] == [leaf.dtype for leaf in begun]
    if backend == "jax":
        assert not any(leaf.weak_type for leaf in (*state.rule_state, *begun)), "nothing is compiled twice"


def test_a_rule_within_a_rule_keeps_its_choices():
    class Around(NamedTuple):
        inner: Any
        others: Any = ()

        def init(self, problem, params, key):
            return self.inner.init(problem, params, key)

        def gradient(self, problem, params, state, batch, keys):
            assert self.inner.signs is True
            assert [rule.signs for rule in self.others] == [True, False]
            return self.inner.gradient(problem, params, state, batch, keys)

    others = (Smoothed(0.1, 0.1, True), Smoothed(0.2))
    ours = fnn.train(NET, LOSS, begin(Around(Smoothed(0.5, 0.1, True), others)), blobs(), steps=3, batch_size=50)
    theirs = fnn.train(NET, LOSS, begin(Smoothed(0.5, 0.1, True)), blobs(), steps=3, batch_size=50)
    same(ours[0].params, theirs[0].params)
    same(ours[1], theirs[1])


OTHER_STATES = {
    "another shape": ({"m": np.zeros(3)}, lambda s: {"m": np.zeros(4)}, r"Stateful\['m'\]: expected shape \(3,\), got"),
    "a field more": ({"m": np.zeros(3)}, lambda s: {**s, "n": np.zeros(1)}, r"extra \[\"\['n'\]\"\]"),
    "a field less": ({"m": np.zeros(3), "n": np.zeros(1)}, lambda s: {"m": s["m"]}, r"missing \[\"\['n'\]\"\]"),
    "a state where there was none": ((), lambda s: np.zeros(2), r"Stateful: expected no state, .* got \(2,\)"),
}


@pytest.mark.parametrize("name", OTHER_STATES)
def test_a_state_of_another_structure_or_shape_is_refused_and_the_field_named(name):
    first, following, message = OTHER_STATES[name]
    with pytest.raises(errors.ShapeError, match=message):
        step(stateful(first, following))


@pytest.mark.parametrize("name", ["loss", "weight"])
def test_metrics_with_the_names_of_the_loops_own_are_refused(name):
    with pytest.raises(errors.ArgumentError, match="Stateful: expected metrics with names other than 'loss' and 'w"):
        step(stateful((), lambda s: s, {name: np.float32(1)}))


# ---- what is declared ------------------------------------------------------------------------------------------------


class Fields(NamedTuple):
    number: Any = 1.0
    share: Annotated[Any, fnn.static.Interval("[0, 1)")] = 0.5
    choice: Choice[str] = "a"
    several: Any = (1.0, {"a": 2})
    inner: Any = Smoothed(0.5)

    def init(self, problem, params, key):
        return ()

    def gradient(self, problem, params, state, batch, keys):
        assert isinstance(self.choice, str)
        return Backprop().gradient(problem, params, state, batch, keys)


WRONG = {
    "a bool that is not declared": ({"number": True}, errors.KindError, r"Fields.number: .* `x: Choice\[...\]`"),
    "a text that is not declared": ({"number": "a"}, errors.KindError, r"Fields.number: .* `x: Choice\[...\]`"),
    "a function": ({"number": np.tanh}, errors.KindError, r"Fields.number: .* `x: Choice\[...\]`"),
    "within a tree": ({"several": (1.0, {"a": "b"})}, errors.KindError, r"Fields.several\[1\]\['a'\]: expected a n"),
    "within an inner rule": ({"inner": Smoothed(0.5, "1")}, errors.KindError, r"Fields.inner.spread: expected a num"),
    "not finite": ({"number": np.nan}, errors.ArgumentError, "Fields.number = nan"),
    "out of its range": ({"share": 1.0}, errors.ArgumentError, "Fields.share"),
    "nothing": ({"share": None}, errors.KindError, "Fields.share: expected a number, got None"),
    "several for one": ({"share": np.full(3, 0.5)}, errors.KindError, r"Fields.share: expected a number, got array"),
    "a schedule": (
        {"share": fnn.schedules.Constant(0.5)},
        errors.KindError,
        "Fields.share: expected a number, got Cons",
    ),
    "no bool": ({"inner": Smoothed(0.5, 0.1, "no")}, errors.KindError, "Fields.inner.signs: expected True or False"),
    "a bool as 1": ({"inner": Smoothed(0.5, 0.1, 1)}, errors.KindError, "Fields.inner.signs: expected True or False"),
    "a class within": ({"inner": Smoothed}, errors.KindError, r"Fields.inner: expected a rule, got the class; write S"),
    "a check of an inner one": ({"inner": ForwardGradient("x")}, errors.ArgumentError, "ForwardGradient.by"),
    "out of the range of an inner one": ({"inner": Smoothed(2.0)}, errors.ArgumentError, "Fields.inner.decay"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_field_that_makes_no_sense_is_named(name):
    change, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        begin(Fields(**change))


def test_a_choice_may_have_any_name():
    class Chosen(NamedTuple):
        rule: Choice[str] = "oja"

        def init(self, problem, params, key):
            return ()

        def gradient(self, problem, params, state, batch, keys):
            return Backprop().gradient(problem, params, state, batch, keys)

    assert begin(Chosen()).rule.rule.thing == "oja"


def test_a_traced_choice_is_refused_and_spoils_no_later_run(needs_jax):
    run = lambda signs, decay: fnn.init_state(NET, fnn.Sgd(0.1), key("jax"), (6,), rule=Smoothed(decay, 0.1, signs))
    with pytest.raises(errors.KindError, match=r"Smoothed\.signs: expected a static choice, got a traced value"):
        fnn.backend.jax.vmap(lambda signs: run(signs, 0.5))(np.array([True, False]))
    with pytest.raises(errors.KindError, match=r"PredictiveCoding\.steps: expected a static choice"):
        fnn.backend.jax.vmap(lambda n: begin(PredictiveCoding(steps=n), "jax"))(np.array([1, 2]))
    assert begin(PredictiveCoding(steps=1), "jax").rule.steps.thing == 1


def test_what_is_no_rule_is_refused():
    for wrong in (3, "backprop", fnn.Sgd(0.1), (1, 2)):
        with pytest.raises(errors.KindError, match="rule: expected a NamedTuple with methods init and gradient"):
            begin(wrong)
    with pytest.raises(errors.KindError, match=r"rule: expected a rule, got the class; write Fields\(\.\.\.\)"):
        begin(Fields)

    class Otherwise(Fields):
        sampling = "other"

    with pytest.raises(errors.ArgumentError, match=r"Otherwise\.sampling: expected 'shuffled' or 'poisson'"):
        begin(Otherwise())
    state = begin(None)
    with pytest.raises(errors.ArgumentError, match="rule: expected None with the state of an earlier run"):
        fnn.fit(NET, LOSS, state, blobs(), rule=Backprop(), epochs=1, batch_size=10)


def test_a_rule_that_draws_its_own_weights_refuses_the_users():
    class Unweighted(Smoothed):
        weighted = False

    state, (x, y) = begin(Unweighted(0.5)), blobs()
    for run in (fnn.train, fnn.fit):
        with pytest.raises(errors.ArgumentError, match=r"expected \(x, y\), as .* draws its own weights"):
            run(NET, LOSS, state, (x, y, np.ones(50)), epochs=1, batch_size=10)
        run(NET, LOSS, state, (x, y), epochs=1, batch_size=10, validation=(x, y, np.ones(50)))


def test_numbers_of_a_rule_are_float64_where_parameters_are():
    state = begin(Fields(), dtype=np.float64)
    assert {leaf.dtype for leaf in trees.leaves(state.rule)} == {np.dtype(np.float64)}
