"""What sites tell for thresholds by group: no small group, and the same in secure sums."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import client.methods.svm
from client.counts.group_screening import screening_by_group
from client.egress.allowlist import allowlist_of
from client.open_site import site_folders
from client.site import Site
from common.answers.group_counts import ScreeningCounts
from common.config.run import RunConfig
from common.data.counted_groups import CountedGroups
from common.data.splits import TEST
from common.errors import Reason
from common.models.linear import LinearModel
from common.task import HAM10000
from common.wire.messages import unpack_arrays
from server.run.folder import MODEL_FILE
from simulations.runtimes.experiment import simulate
from tests.client.egress.test_guard import MAP, Node
from tests.documents import records_of
from tests.sites import N_FEATURES, make_quick_sites, with_changes

LEAST = 4
PLACES = 29
# Each of both has lesions enough for plain sums.
BINARY = {
    "diagnoses": "binary",
    "mapping": "akiec+bcc+mel->malignant,bkl+df+nv+vasc->benign",
}
RULE = {
    "weights": np.zeros((1, 2, N_FEATURES + 1)),
    "calibration": np.ones((2, 2)),
    "base_rates": np.ones(2),
}

Hospital = Callable[..., Node]


@pytest.fixture
def sites(synthetic_folder: Path, tmp_path: Path) -> Callable[[int], RunConfig]:
    """Make sites; of the groups by place on the body many are small."""

    def make(number: int) -> RunConfig:
        base = make_quick_sites(synthetic_folder, tmp_path, number)
        changes = {"c": 1e-4, "out": tmp_path / "run", "screening_by": "localization"}
        return with_changes(base, changes)

    return make


@pytest.fixture
def hospital(
    sites: Callable[[int], RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Hospital:
    """Make a hospital of given rules, which counts its lesions under any scores."""
    monkeypatch.setattr(client.methods.svm, "answer", measured)
    base = sites(1)

    def make(changes: dict[str, str] | None = None, **rules: int) -> Node:
        run = with_changes(base, {**BINARY, **(changes or {})})
        return Node(run, tmp_path / f"hospital-{rules}", **rules)

    return make


def measured(site: Site, *_: object) -> ScreeningCounts:
    images = np.flatnonzero(site.dataset.splits != TEST)
    k = site.config.task.n_classes
    chances = np.random.default_rng(0).dirichlet(np.ones(k), len(images))
    return screening_by_group(site, images, chances)


def test_no_small_group_leaves_whatever_the_method_answers(hospital, monkeypatch):
    told, exact = (
        unpack_arrays(hospital(least_lesions=least).ask("screening", RULE, map=MAP))
        for least in (LEAST, 0)
    )
    small = (exact["lesions"] > 0) & (exact["lesions"] < LEAST)
    assert small.any()
    assert not told["lesions"][small].any()
    assert told["lesions"].sum() == exact["lesions"].sum() > 0
    for answer in (told, exact):
        totals = answer["screening"].sum(axis=(2, 3))
        np.testing.assert_array_equal(totals, answer["lesions"][:, None])
    assert ((told["lesions"] == 0) | (told["lesions"] >= LEAST)).all()

    loose = ScreeningCounts(exact["lesions"], exact["screening"])
    monkeypatch.setattr(client.methods.svm, "answer", lambda *_: loose)
    assert hospital(least_lesions=LEAST).refusal("screening", RULE, map=MAP) is Reason.FEW


def test_a_run_of_one_threshold_has_no_such_answer(hospital):
    assert hospital({"screening_by": ""}).refusal("screening", RULE, map=MAP) is Reason.ORDER


@pytest.mark.parametrize("method", ["svm", "finetune"])
def test_every_record_is_in_the_table_of_the_document(method):
    listed = records_of("What leaves for thresholds by group")
    assert listed == allowlist_of(method).SUMS["screening"].keys()


def test_a_federation_adds_each_groups_lesions_under_secure_sums_too(sites):
    config = sites(3)
    counted_groups = CountedGroups.read("localization")
    names = counted_groups.names(counted_groups.dimensions[0])
    malignant = np.isin(np.array(HAM10000.codes), HAM10000.malignant)
    expected = np.zeros((PLACES, 2), dtype=int)
    assert len(names) == PLACES
    for folder in site_folders(config.sites):
        site = Site(folder, config)
        for number in np.flatnonzero(site.one_a_lesion & ~site.held_out):
            place = site.dataset.images[number].localization
            group = names.index(place if place in names else "missing")
            expected[group, int(malignant[site.dataset.labels[number]])] += 1
    found = []
    for secure in (False, True):
        out = config.out.with_name(f"run-{secure}")
        simulate(with_changes(config, {"out": out, "secure": secure}))
        basis = LinearModel.load(out / MODEL_FILE).basis
        own = [names.index(name) for name in basis.by_group.groups.names]
        counted = basis.by_group.screening[:, 1].sum(axis=2)
        np.testing.assert_array_equal(counted, expected[own])
        found.append(basis.by_group.screening)
        rest = basis.lesions.screening[1] - basis.by_group.screening.sum(axis=0)[1]
        assert rest.min() >= 0
    np.testing.assert_array_equal(*found)
