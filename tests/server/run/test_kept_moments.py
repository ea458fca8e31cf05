"""Sites that join, grow and leave: the kept sums are those of a training from nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.statistics.moments import Moments, lda, ridge
from common.task import HAM10000, Task
from server.run.kept_moments import KeptMoments
from tests.examples import examples
from tests.records import N_CLASSES, Ints, draw_records

X, Y = draw_records(400, 12)
FEW = Task.of(("bkl", "mel", "nv"), {}, (), {})
NAMES = ("a", "b c", "d", "e")

steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["grow", "leave", "return"])), max_size=12
)


def measure(rows: Ints) -> Moments:
    return Moments.measure(X[rows], Y[rows], np.ones(len(rows)), N_CLASSES)


@examples(20)
@given(steps, st.integers(0, 2**32 - 1))
def test_any_order_of_joining_growing_and_leaving_is_a_training_from_nothing(steps, seed):
    """Each update is given what changed alone; the others are not there."""
    rng = np.random.default_rng(seed)
    records = {"z": np.arange(100)}
    kept = KeptMoments({"z": measure(records["z"])}, HAM10000)
    for name, what in steps:
        if what == "leave":
            if name in records:
                del records[name]
                kept = kept.updated({}, (name,), HAM10000)
            continue
        new = rng.choice(np.arange(100, 400), 30)
        records[name] = np.union1d(records.get(name, new), new) if what == "grow" else new
        kept = kept.updated({name: measure(records[name])}, (), HAM10000)
    everything = np.concatenate(list(records.values()))
    wanted = measure(everything)
    for solve in (lda, lambda moments: ridge(moments, 1.0)):
        for got, want in zip(solve(kept.total()), solve(wanted), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-8)
    in_one_go = KeptMoments({n: measure(r) for n, r in records.items()}, HAM10000).total()
    np.testing.assert_array_equal(kept.total().gram, in_one_go.gram)


def test_a_diagnosis_that_is_added_has_no_records_of_the_former_sites(tmp_path):
    rows = np.flatnonzero(np.isin(Y, [HAM10000.codes.index(code) for code in FEW.codes]))
    labels = np.searchsorted([HAM10000.codes.index(code) for code in FEW.codes], Y[rows])
    few = Moments.measure(X[rows], labels, np.ones(len(rows)), FEW.n_classes)
    KeptMoments({"a": few}, FEW).save(tmp_path)
    others = np.setdiff1d(np.arange(len(Y)), rows)
    kept = KeptMoments.load(tmp_path, FEW).updated({"b": measure(others)}, (), HAM10000)
    for got, want in zip(lda(kept.total()), lda(measure(np.arange(len(Y)))), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-8)


def test_who_was_never_in_cannot_leave():
    kept = KeptMoments({"a": measure(np.arange(50))}, HAM10000)
    with pytest.raises(DataError, match="'leaving' is b, which has no share"):
        kept.updated({}, ("b",), HAM10000)
    with pytest.raises(DataError, match="no site is left"):
        kept.updated({}, ("a",), HAM10000)
