"""Whatever images make passes; what none can make is refused, with the site's name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

import client.app
import server.app
from common.answers.group_counts import ScreeningCounts
from common.config.run import RunConfig
from common.errors import ReplyError
from common.statistics.moments import Moments
from common.svm.feature_map import clip_rows
from common.svm.objective import balanced_weights, hinge_sums, with_intercept
from common.task import HAM10000
from common.wire.messages import bind, digest, pack, unpack_arrays, unpack_values
from server.federation.plausibility import HingeLimits, check_moments, check_screening
from server.federation.question import check_size
from simulations.runtimes.experiment import rounds
from simulations.runtimes.in_process import RUN_ID, SERVER_NODE_ID, InProcessGrid
from tests.sites import make_quick_sites

N_CLASSES, IMAGES, VIEWS = len(HAM10000.codes), 30, 2


def records(seed: int, d: int, size: float) -> tuple[Any, Any, Any]:
    """Return views of images, which weigh one a image together, of some of the classes."""
    rng = np.random.default_rng(seed)
    X = size * rng.standard_normal((IMAGES * VIEWS, d)) * rng.exponential(1, d)
    y = np.repeat(rng.integers(0, rng.integers(1, N_CLASSES + 1), IMAGES), VIEWS)
    return X, y, np.full(len(y), 1 / VIEWS)


def moments(X: Any, y: Any, weight: Any) -> Moments:
    return Moments.measure(X, y, weight, N_CLASSES)


@given(st.integers(0, 10_000), st.integers(1, 100), st.sampled_from([1e-3, 1.0, 1e3]))
def test_moments_of_any_records_pass(seed, d, size):
    X, y, weight = records(seed, d, size)
    check_moments(HAM10000, moments(X + 100 * size, y, weight), IMAGES)


@given(
    st.integers(0, 10_000),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.0, 0.1, 10.0]),
)
def test_losses_and_gradients_of_any_records_pass(seed, d, clip, length):
    X, y, weight = records(seed, d, 1.0)
    X = clip_rows(X, clip) if clip else X
    found = moments(X, y, weight)
    class_weights = balanced_weights(found.class_weight)
    rng = np.random.default_rng(seed)
    weights = length * rng.standard_normal((2, N_CLASSES, d + 1))
    mine = slice(0, 10 * VIEWS)  # of a site with a third of the images
    sample = np.stack([(class_weights[y] * weight)[mine]] * 2)
    sums, _ = hinge_sums(with_intercept(X[mine]), y[mine], sample, weights)
    HingeLimits(HAM10000, found, class_weights, clip).check(sums, weights, images=10)


def test_what_no_records_make_is_refused():
    X, y, weight = records(0, 12, 1.0)
    found = moments(X, y % 2, weight)
    class_weights = balanced_weights(found.class_weight)
    for lie, reason in (
        (replace(found, gram=-found.gram), "not positive semidefinite"),
        (replace(found, gram=0 * found.gram), "not positive semidefinite"),
        (replace(found, class_sum=9 * found.class_sum + 9), "diagnosis bkl, of which it has no"),
    ):
        with pytest.raises(ReplyError, match=reason):
            check_moments(HAM10000, lie, IMAGES)
    limits = HingeLimits(HAM10000, found, class_weights, 0.0)
    weights = np.zeros((1, N_CLASSES, 13))
    sample = (class_weights[y % 2] * weight)[None]
    sums, _ = hinge_sums(with_intercept(X), y % 2, sample, weights)
    with pytest.raises(ReplyError, match="loss of diagnosis akiec is 3"):
        limits.check(replace(sums, loss=100 * sums.loss), weights, IMAGES)
    with pytest.raises(ReplyError, match="gradient of diagnosis akiec is"):
        limits.check(replace(sums, gradient=100 * sums.gradient), weights, IMAGES)


def lying(question: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> ClientApp:
    """Return the real client app, whose second site lies."""
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        asked = digest(message.content)
        reply = client.app.app(message, context)
        if unpack_values(message.content)["question"] != question or context.node_id != 2:
            return reply
        arrays, values = unpack_arrays(reply.content), unpack_values(reply.content)
        return Message(bind(pack(change(arrays), values), asked), reply_to=message)

    return app


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    return make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), 3)


@pytest.mark.parametrize(
    ("question", "name", "change", "reason"),
    [
        ("moments", "gram", np.negative, "no records have its second moments"),
        ("moments", "class_sum", lambda a: 5 * a, "no records have its second moments"),
        ("moments", "class_weight", lambda a: 50 * a, "array 'class_weight' adds up to"),
        ("moments", "gram", lambda a: a * np.inf, "array 'gram' holds NaN or infinite values"),
        ("hinge", "loss", np.negative, "array 'loss' is negative"),
        ("hinge", "loss", lambda a: 1e4 * a, "loss of diagnosis "),
        ("hinge", "gradient", lambda a: -1e3 * a, "gradient of diagnosis "),
        ("hinge", "gradient", lambda a: a * np.nan, "array 'gradient' holds NaN or infinite"),
        ("hinge", "gradient", lambda a: a[..., 1:], "array 'gradient' is float64["),
    ],
)
def test_a_lying_site_is_named_and_the_model_is_that_of_the_others(
    config, tmp_path, question, name, change, reason
):
    run = config.model_copy(update={"out": tmp_path / "run"})
    app = lying(question, lambda arrays: {**arrays, name: np.asarray(change(arrays[name]))})
    grid = InProcessGrid(app, [{"partition-id": i} for i in range(3)], run.flat())
    server.app.app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), run.flat()))
    faults = [fault for entry in rounds(run.out) for fault in entry["faults"].items()]
    assert [site for site, _ in faults] == ["site_01"]
    assert reason in faults[0][1]


def test_thresholds_by_group_take_counts_of_the_same_lesions_alone():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(7), 40)
    counts = ScreeningCounts.measure(HAM10000, rng.integers(-1, 3, 40), 3, p.argmax(axis=1), p)
    check_screening(counts, 40)
    check_size(counts, 40)
    one_more = counts.lesions + np.array([0, 1, 0])
    with pytest.raises(ReplyError, match="are not all of the same ones"):
        check_screening(replace(counts, lesions=one_more), 40)
    with pytest.raises(ReplyError, match="'lesions' adds up to"):
        check_size(replace(counts, lesions=one_more + 40), 40)
