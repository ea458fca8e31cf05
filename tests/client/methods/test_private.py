"""A site tells of its lesions what its budget pays for, once, and nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from scipy import stats

import client.app
import client.methods.private
from client.app import app
from client.egress.allowlist import allowlist_of
from client.egress.questions import Question, check
from client.methods.private import answer
from client.operator.site_rules import Operator
from client.privacy.ledger import Ledger, Release
from client.privacy.paid_step import ledger_of
from client.sealed_log import SealedLog
from client.site import Site
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, encode, width
from common.data.tables.ham10000 import write_metadata
from common.errors import ConfigError, DataError, RefusalError
from common.privacy.accounting import SampledGaussian
from common.privacy.lda import moments
from common.privacy.linear import (
    MOMENTS_NORM,
    OVERVIEW_NORM,
    Centre,
    Objective,
    Units,
    clipped_gradients,
    intercept_of,
    overview,
    plan,
    public_map,
)
from common.privacy.noise import ROUNDING, STEP
from common.wire.messages import pack, stamp, unpack_arrays, unpack_values
from simulations.runtimes.in_process import InProcessGrid
from tests.documents import listed_records
from tests.sites import hospital_file, make_quick_sites, with_changes, write_features

RUN = "0a" * 8
CLASSES, DIMENSIONS = 7, 12
COLUMNS = ("age", "sex", "localization")
Ask = Callable[..., np.ndarray]


@pytest.fixture
def make_site(synthetic_folder: Path, tmp_path: Path) -> Callable[..., Site]:
    """Open the only site of a federation, with a ledger of its own."""
    base = make_quick_sites(synthetic_folder, tmp_path, 1, views=2)

    def make(
        hospital: bool = False, limit: float = 2.0, least_lesions: int = 0, **changes: Any
    ) -> Site:
        settings = {"method": "private", "components": DIMENSIONS, "steps": 3, **changes}
        config = with_changes(base, {"out": tmp_path / "run", **settings})
        assert config.sites is not None
        if config.seed != base.seed:
            write_features(synthetic_folder, config)
        folder = next(config.sites.iterdir())
        if not hospital:
            return Site(folder, config)
        rules = {"epsilon": limit, "least_lesions": least_lesions}
        file = hospital_file(folder, tmp_path / "hospital", **rules)
        return Site(folder, config, Operator.read(file))

    return make


def _ask(site: Site, step: int, run: str = RUN, **changed: Any) -> np.ndarray:
    question = "gradient" if step else "overview"
    size = DIMENSIONS + width(site.config.metadata)
    known = {
        "mean": np.zeros(size),
        "scale": np.array(1.0),
        "offset": np.zeros(CLASSES),
        "class_weight": np.ones(CLASSES),
        "weights": np.zeros((CLASSES, size + 1)),
    }
    arrays = {**known, **changed} if step else {}
    return _answer(site, question, arrays, {"run": run, "step": step}).to_record()["values"] * STEP


def _answer(site: Site, question: str, arrays: dict, values: dict) -> Any:
    asked = Question(1, "1", question, arrays, {"question": question, **values})
    check(site, asked, allowlist_of(site.config.method).QUESTIONS)
    return answer(site, asked)


def _lesions(site: Site) -> Units:
    """Average the views of each lesion's images, one lesion at a time."""
    dataset, feature_map = site.dataset, public_map(96, DIMENSIONS, site.config.seed)
    names = sorted(set(dataset.lesions[~site.held_out]))
    rows, labels = [], []
    for name in names:
        images = np.flatnonzero(dataset.lesions == name)
        views = site.features.train[images]
        rows.append(np.mean([feature_map.apply(each).mean(axis=0) for each in views], axis=0))
        labels.append(dataset.labels[images[0]])
    return Units.apart(np.array(rows), np.array(labels))


def test_without_noise_the_sums_are_those_of_lesions(make_site):
    site = make_site(epsilon=0)
    lesions = _lesions(site)
    np.testing.assert_allclose(_ask(site, 0), overview(lesions, CLASSES), atol=1e-6)
    centre = Centre.of(lesions.X.mean(axis=0), intercept_of("softmax"))
    weights = np.random.default_rng(0).standard_normal((CLASSES, DIMENSIONS + 1))
    got = _ask(site, 1, mean=centre.mean, scale=centre.scale, weights=weights)
    objective = Objective("softmax", np.zeros(CLASSES), np.ones(CLASSES))
    expected = clipped_gradients(lesions, centre, weights, objective, 1.0)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_with_metadata_each_lesion_is_seen_with_and_without(make_site):
    site = make_site(epsilon=0, metadata=COLUMNS, metadata_scale=0.4, metadata_dropped=0.3)
    lesions, table = _lesions(site), site.dataset
    names = sorted(set(table.lesions[~site.held_out]))
    rows = [table.images[int(np.flatnonzero(table.lesions == name)[0])] for name in names]
    shrink = 1 / np.sqrt(1 + 3 * 0.4**2)

    def beside(known: list) -> np.ndarray:
        numbers = encode(COLUMNS, known) - np.repeat([1 / 11, 1 / 3, 1 / 27], [11, 3, 27])
        return np.hstack([lesions.X, 0.4 * numbers]) * shrink

    seen, hidden = (Units.apart(beside(k), lesions.y) for k in (rows, [UNKNOWN] * len(rows)))
    expected = 0.7 * overview(seen, CLASSES) + 0.3 * overview(hidden, CLASSES)
    np.testing.assert_allclose(_ask(site, 0), expected, atol=1e-6)
    rng, size = np.random.default_rng(0), DIMENSIONS + width(COLUMNS)
    mean, weights = rng.random(size) / size, rng.standard_normal((CLASSES, size + 1))
    got = _ask(site, 1, mean=mean, weights=weights)
    how = (Centre(mean, np.array(1.0), intercept_of("softmax")), weights, _even(), 1.0)
    expected = 0.7 * clipped_gradients(seen, *how) + 0.3 * clipped_gradients(hidden, *how)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def _even() -> Objective:
    return Objective("softmax", np.zeros(CLASSES), np.ones(CLASSES))


@pytest.mark.parametrize("hospital", [False, True])
def test_one_lesion_more_moves_no_other_whatever_is_known_of_it(make_site, hospital):
    """Also where an operator's least number of lesions makes exact sums hide rare places."""
    changes = {"metadata": COLUMNS, "hospital": hospital, "least_lesions": 5 * hospital}
    site = make_site(epsilon=2, **changes)
    images = site.dataset.images
    lone = images[int(np.flatnonzero(~site.held_out)[0])].lesion_id
    write_metadata(
        site.folder,
        [replace(i, localization="scalp" if i.lesion_id == lone else "back") for i in images],
    )
    site = make_site(epsilon=2, **changes)
    names = sorted(set(site.dataset.lesions[~site.held_out]))
    more, told = client.methods.private.units_of(site), client.app._describe(site)
    more_told = {**told, **client.methods.private.describe(site)}
    write_metadata(site.folder, [i for i in site.dataset.images if i.lesion_id != lone])
    fewer_site = make_site(epsilon=2, **changes)
    fewer = client.methods.private.units_of(fewer_site)
    assert more.total == fewer.total + 1
    same = more.of(np.arange(more.total) != names.index(lone))
    for others, expected in zip(same, fewer, strict=True):
        np.testing.assert_allclose(others, expected, rtol=0, atol=1e-12)
    fewer_told = {**client.app._describe(fewer_site), **client.methods.private.describe(fewer_site)}
    assert more_told.pop("fingerprint") != fewer_told.pop("fingerprint")
    assert more_told == fewer_told
    assert "metadata" not in more_told
    _check_price(site.config, more, fewer)


def _check_price(config: RunConfig, more: Units, fewer: Units) -> None:
    """Compare what the lesion moves of a sum with the norm of the plan, which is that without."""
    size = DIMENSIONS + width(COLUMNS)
    weights = np.random.default_rng(1).standard_normal((CLASSES, size + 1))
    sent = {"mean": np.zeros(size), "scale": np.array(30.0), "weights": weights}
    sent |= {"offset": np.zeros(CLASSES), "class_weight": np.ones(CLASSES)}
    for question in ("overview", "gradient", "moments"):
        a, b = (client.methods.private.clipped(config, u, question, sent) for u in (more, fewer))
        assert np.linalg.norm(a.sums - b.sums) <= a.norm * (1 + ROUNDING / 1e6)
        assert (a.norm, a.noise) == (b.norm, b.noise)
    assert plan(config) == plan(config.model_copy(update={"metadata": ()}))


def test_a_patient_with_many_lesions_counts_once(make_site):
    site = make_site(epsilon=0)
    lesions, names = _lesions(site), sorted(set(site.dataset.lesions[~site.held_out]))
    patients = [f"person {number // 3}" for number in range(len(names))]
    person = dict(zip(names, patients, strict=True))
    _name_patients(site, [person.get(lesion, "of the test set") for lesion in site.dataset.lesions])
    units = lesions._replace(unit=np.arange(len(names)) // 3)
    site = make_site(epsilon=0, unit="patient_id")
    got = _ask(site, 0, run="0d" * 8)
    np.testing.assert_allclose(got, overview(units, CLASSES), atol=1e-6)
    assert got[:CLASSES].sum() == pytest.approx(-(-len(names) // 3), abs=1e-6)


def test_units_that_the_table_does_not_name_are_refused(make_site):
    with pytest.raises(DataError, match="'unit' is patient_id, which the site's table lacks"):
        _ask(make_site(epsilon=2, unit="patient_id"), 0)
    site = make_site(epsilon=2)
    first = int(np.flatnonzero(~site.held_out)[0])
    _name_patients(site, ["" if i == first else "someone" for i in range(len(site.dataset))])
    with pytest.raises(DataError, match="some images; fill that column in"):
        _ask(make_site(epsilon=2, unit="patient_id"), 0)


def _name_patients(site: Site, names: list[str]) -> None:
    images = site.dataset.images
    named = [replace(image, patient_id=n) for image, n in zip(images, names, strict=True)]
    write_metadata(site.folder, named)


@pytest.mark.parametrize(("trust", "honest", "share"), [("site", 1, 1.0), ("distributed", 4, 0.5)])
def test_the_noise_is_that_of_the_plan(make_site, trust, honest, share):
    clear = _ask(make_site(epsilon=0), 0, run="0b" * 8)
    site = make_site(epsilon=2, trust=trust, honest=honest, clip_norm=0.5)
    spent = plan(site.config)
    assert spent is not None
    scaled = (_ask(site, 0) - clear) / (spent.overview.noise * OVERVIEW_NORM * share)
    assert stats.kstest(scaled, "norm").pvalue > 1e-3
    drawn = [_ask(site, step) for step in (1, 2)]  # the same question: noise alone differs
    scaled = (drawn[0] - drawn[1]).ravel() / (np.sqrt(2) * spent.training.noise * 0.5 * share)
    assert stats.kstest(scaled, "norm").pvalue > 1e-3


def test_moments_are_noisy_and_sent_once(make_site):
    arrays = {"mean": np.zeros(DIMENSIONS), "scale": np.array(1.0)}

    def ask(site: Site, step: int = 1) -> np.ndarray:
        values = {"run": RUN, "step": step}
        sums = _answer(site, "moments", arrays, values)
        return sums.to_record()["values"] * STEP

    clear_site = make_site(epsilon=0, head="lda")
    _ask(clear_site, 0)
    clear = ask(clear_site)
    lesions = _lesions(clear_site)
    expected = moments(lesions, Centre(arrays["mean"], arrays["scale"]), CLASSES)
    np.testing.assert_allclose(clear, expected, atol=1e-6)
    shutil.rmtree(clear_site.folder / "ledger")
    site = make_site(epsilon=2, head="lda")
    spent = plan(site.config)
    assert spent is not None
    _ask(site, 0)
    scaled = (ask(site) - clear) / (spent.training.noise * MOMENTS_NORM)
    assert stats.kstest(scaled, "norm").pvalue > 1e-3
    with pytest.raises(RefusalError, match="step 2, moments, does not follow step 1"):
        ask(site, 2)
    other = make_site(epsilon=0, head="lda")
    _ask(other, 0, run="0e" * 8)
    with pytest.raises(RefusalError, match="step 1, gradient, does not follow step 0"):
        _ask(other, 1, run="0e" * 8)


def test_asked_again_it_gives_the_very_same_answer(make_site):
    site = make_site(epsilon=2)
    first = [_ask(site, 0), _ask(site, 1)]
    again = make_site(epsilon=2)  # as after a crash: nothing in memory
    np.testing.assert_array_equal(_ask(again, 1), first[1])
    assert (_ask(again, 2) != first[1]).any()


def test_a_step_reads_the_ledger_twice(make_site, monkeypatch):
    """Once to know what was answered, once to pay; what is computed between holds nobody up."""
    site, real, read = make_site(epsilon=2), SealedLog.opened, []

    def noted(log: SealedLog) -> Any:
        read.append(log.path)
        return real(log)

    _ask(site, 0)
    monkeypatch.setattr(SealedLog, "opened", noted)
    for step in (1, 1, 2):
        read.clear()
        _ask(site, step)
        assert len(read) == 2


def test_a_run_whose_answers_were_lost_is_not_answered_anew(make_site):
    site = make_site(epsilon=2)
    _ask(site, 0)
    _ask(site, 1)
    shutil.rmtree(site.folder / "ledger" / "answers")
    with pytest.raises(RefusalError, match="the answers were lost"):
        _ask(site, 0)


@pytest.mark.parametrize(("done", "step"), [(-1, 1), (2, 1), (2, 0), (3, 4)])
def test_steps_that_are_out_of_order_or_too_many_are_refused(make_site, done, step):
    site = make_site(epsilon=2)
    for before in range(done + 1):
        _ask(site, before)
    with pytest.raises(RefusalError, match=f"step {step}, .* does not follow"):
        _ask(site, step)


def test_a_site_that_missed_a_step_answers_the_next_for_what_was_paid(make_site):
    site = make_site(epsilon=2)
    _ask(site, 0)
    _ask(site, 1)
    account = ledger_of(site).account()
    _ask(site, 3)
    assert ledger_of(site).account().history == account.history
    with pytest.raises(RefusalError, match="step 2, gradient, does not follow step 3"):
        _ask(site, 2)


def test_a_sample_has_its_rate(make_site):
    site = make_site(epsilon=0, rate=0.3, steps=60, clip_norm=100.0)
    others = int((_lesions(site).y > 0).sum())
    _ask(site, 0)
    # All seem to be of the first class: the other intercepts' gradients count who is not.
    offset = np.array([0.0, *[-50.0] * 6])
    intercept = intercept_of("softmax")
    sums = [-_ask(site, step, offset=offset)[1:, -1].sum() for step in range(1, 61)]
    sampled = np.array(sums) / intercept
    assert stats.binomtest(round(sum(sampled)), 60 * others, 0.3).pvalue > 1e-3
    assert len({round(count) for count in sampled}) > 1


def test_a_run_that_the_budget_does_not_cover_is_refused_before_it_begins(make_site):
    _ask(make_site(epsilon=2), 0)
    with pytest.raises(RefusalError, match="does not allow 'overview and training'"):
        _ask(make_site(epsilon=2), 0, run="0c" * 8)


def test_the_limit_is_the_operators(make_site):
    with pytest.raises(RefusalError, match="the privacy budget does not allow"):
        _ask(make_site(hospital=True, limit=1.0, epsilon=2), 0)


def test_unit_and_largest_delta_are_the_operators(make_site):
    """And a smaller delta of a run is accounted for at the ledger's."""
    for changes in ({"unit": "image_id"}, {"delta": 1.1e-5}, {"delta": 0.0062}):
        site = make_site(hospital=True, limit=3.0, epsilon=2, **changes)
        for ask in (lambda site: _ask(site, 0), client.methods.private.describe):
            with pytest.raises(RefusalError, match="the operator's rules have lesion_id"):
                ask(site)
    assert (_ask(make_site(hospital=True, limit=3.0, epsilon=2, delta=1e-6), 0) != 0).any()
    account = ledger_of(make_site(hospital=True, limit=3.0, epsilon=2)).account()
    assert (account.unit, account.delta) == ("lesion_id", 1e-5)
    assert account.spent < 2


def test_joining_begins_no_ledger_and_pins_no_split(make_site):
    for changes in ({"seed": 7}, {"folds": 5}, {"test_fraction": 0.5}, {}):
        site = make_site(hospital=True, limit=9.0, epsilon=2, **changes)
        told = client.methods.private.describe(site)["fingerprint"]
        assert not (site.own_folder / "ledger").exists()
        # Nobody who guesses the data can check it by what is told.
        assert told != site.fingerprint
    first = make_site(hospital=True, limit=9.0, epsilon=2, seed=7, folds=5, test_fraction=0.5)
    honest = make_site(hospital=True, limit=9.0, epsilon=2)
    assert (first.held_out == honest.held_out).all()
    _ask(first, 0)
    assert (_ask(honest, 0, run="0c" * 8) != 0).any()
    assert len(ledger_of(honest).account().history) == 4


def test_a_ledger_of_before_is_carried_over(make_site):
    """Then it went by a digest of the run's splits too."""
    site = make_site(hospital=True, limit=9.0, epsilon=2)
    write_metadata(site.folder, [replace(image, split="") for image in site.dataset.images])
    site = make_site(hospital=True, limit=9.0, epsilon=2)
    assert site.operator is not None
    seals = site.operator.seals
    before = site.former_fingerprint
    assert before != site.fingerprint
    old = Ledger.open(site.own_folder / "ledger", before, "lesion_id", 9.0, 1e-5, seals)
    old.reserve(Release(SampledGaussian(5.0, 1.0), "overview"))
    spent = old.account().spent
    assert ledger_of(site).account().spent == spent
    _ask(site, 0)
    assert ledger_of(site).account().spent > spent
    assert sorted(seal.suffix for seal in seals.iterdir()).count(".json") == 1
    with pytest.raises(ConfigError, match="is the ledger of other data"):
        Ledger.open(site.own_folder / "ledger", "ab", "lesion_id", 9.0, 1e-5, seals)


def test_a_budget_that_buys_no_answer_is_not_charged(make_site):
    for changes in ({"clip_norm": 1e6}, {"epsilon": 1e-6}):
        site = make_site(hospital=True, limit=9.0, **{"epsilon": 3, **changes})
        with pytest.raises(ConfigError, match="noise"):
            _ask(site, 0)
        assert not ledger_of(site).account().history, changes


def test_a_budget_that_pays_for_the_overview_alone_pays_for_nothing(make_site):
    site = make_site(hospital=True, limit=1.9, epsilon=2)
    with pytest.raises(RefusalError, match="the privacy budget does not allow"):
        _ask(site, 0)
    assert not ledger_of(site).account().history


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.full((CLASSES, DIMENSIONS + 1), np.nan)}, "'weights', .*, is not Form"),
        ({"mean": np.full(DIMENSIONS, 1e7)}, "'mean', .*, is not Form"),
        ({"class_weight": np.full(CLASSES, 1.1)}, "'class_weight', .*, is not Form"),
        ({"scale": np.array(np.inf)}, "'scale', .*, is not Form"),
        ({"mean": np.zeros((119, DIMENSIONS))}, "'mean', .*, is not Form"),
        ({"class_weight": np.ones(CLASSES - 1)}, "'class_weight', .*, is not Form"),
    ],
)
def test_numbers_that_would_break_the_clip_are_refused(make_site, changes, message):
    site = make_site(epsilon=2)
    _ask(site, 0)
    with pytest.raises(RefusalError, match=message):
        _ask(site, 1, **changes)


def test_a_hospital_refuses_what_only_simulations_may(make_site):
    for changes, message in [
        ({"epsilon": 2, "trust": "distributed", "honest": 2}, "secure sum"),
        ({"epsilon": 0}, "'epsilon' is 0"),
        ({"epsilon": 2, "limit": 0.0}, "the operator's rules allow no 'epsilon'"),
    ]:
        site = make_site(hospital=True, **changes)
        with pytest.raises(RefusalError, match=message):
            _ask(site, 0)
        with pytest.raises(RefusalError, match=message):
            client.methods.private.describe(site)
    rule = {"calibration": np.ones((2, CLASSES)), "base_rates": np.ones(CLASSES)}
    arrays = {"weights": np.zeros((CLASSES, DIMENSIONS + 1)), **rule}
    with pytest.raises(RefusalError, match="no exact counts of test lesions"):
        _answer(make_site(hospital=True, epsilon=2), "evaluate", arrays, {})


def test_a_hospital_shares_noise_in_secure_sums(make_site):
    changes = {"epsilon": 2, "trust": "distributed", "honest": 4}
    site = make_site(hospital=True, secure=True, **changes)
    assert client.methods.private.describe(site)["images"] == ""
    assert (_ask(site, 0) != 0).any()


@pytest.mark.parametrize("older", [range(4), range(3), [4], []])
def test_no_step_is_answered_again_after_answers_were_put_back(make_site, tmp_path, older):
    """The sealed ledger knows what was answered, whatever older copies of files say."""
    site = make_site(hospital=True, epsilon=2, steps=6)
    answers, copies = site.own_folder / "ledger" / "answers", tmp_path / "copies"
    copies.mkdir()
    for step in range(5):
        _ask(site, step)
        for file in answers.glob("*.safetensors"):
            shutil.copy(file, copies / file.name)
    shutil.rmtree(answers)
    answers.mkdir()
    for step in older:
        shutil.copy(copies / f"{RUN}-{step}.safetensors", answers)
    kept = max(older, default=-1)
    for step in range(5):
        if step == kept == 4:
            continue
        with pytest.raises(RefusalError):
            _ask(site, step)
    if kept == 4:
        np.testing.assert_array_equal(_ask(site, 4), _ask(site, 4))
    assert (_ask(site, 5) != 0).any()


def test_features_that_are_no_numbers_are_an_error(make_site, monkeypatch):
    site = make_site(epsilon=2)
    spoiled = replace(site.features, views=np.full_like(site.features.views, np.nan))
    monkeypatch.setattr("client.site.extract", lambda *_: spoiled)
    site = make_site(epsilon=2)
    with pytest.raises(DataError, match="NaN or infinite"):
        _ask(site, 0)


def test_every_record_that_leaves_a_site_is_in_the_table(make_site, monkeypatch):
    """Whoever adds a record must say in docs/privacy.md how it is paid for."""
    listed = listed_records()
    site = make_site(hospital=True, epsilon=2)
    monkeypatch.setattr("client.app.open_site", lambda *_: site)
    grid = InProcessGrid(app, [{}], {})
    rule = {"calibration": np.ones((2, CLASSES)), "base_rates": np.ones(CLASSES)}
    weights = np.zeros((CLASSES, DIMENSIONS + 1))
    even = {"offset": np.zeros(CLASSES), "class_weight": np.ones(CLASSES)}
    fixed = {"mean": np.zeros(DIMENSIONS), "scale": np.array(1.0), **even}
    run = {"run": RUN}
    for question, arrays, values in [
        ("join", {}, {}),
        ("overview", {}, {**run, "step": 0}),
        ("gradient", {**fixed, "weights": weights}, {**run, "step": 1}),
        ("gradient", {**fixed, "weights": weights}, {**run, "step": 9}),
        ("evaluate", {"weights": weights, **rule}, {}),
        ("close", {}, {"finished": True}),
    ]:
        content = stamp(pack(arrays, {"question": question, **values}))
        reply = grid.send_and_receive([Message(content, 1, "query")])[0].content
        told = unpack_values(reply)
        if question in ("evaluate",) or values.get("step") == 9:
            assert "refused" in told, question
        left = [*told, *(n for n in unpack_arrays(reply))]
        assert set(left) <= listed, question
        if question == "join":
            assert told["images"] == told["lesions"] == ""
            assert told["fingerprint"] != site.fingerprint
        exact = json.dumps([str(v) for v in told.values()])
        assert not any(lesion in exact for lesion in site.dataset.lesions)
