"""What a hospital tells of two models: counts of held-out lesions, in a run that compares them."""

import numpy as np
import pytest

from client.egress.allowlist import allowlist_of
from common.answers.paired import INCUMBENT, PAIRED, PAIRED_GROUPS, RULE_NAMES, Said
from common.config.run import RunConfig
from common.errors import Reason
from common.svm.feature_map import FeatureMap
from common.wire.messages import unpack_arrays, unpack_values
from tests.client.egress.test_guard import Node
from tests.documents import records_of
from tests.sites import N_FEATURES, make_quick_sites, with_changes, write_features

LEAST = 6
BINARY = {
    "diagnoses": "binary",
    "mapping": "akiec+bcc+mel->malignant,bkl+df+nv+vasc->benign",
    "gate_by": "sex,localization",
    "folds": 2,
}
K = RunConfig.read(BINARY).task.n_classes
MAP = FeatureMap(np.zeros(N_FEATURES), np.eye(N_FEATURES)[:, :40])
RULES = {
    name: np.array(0.5)
    if name.endswith("melanoma")
    else np.ones((2, K))
    if name.endswith("calibration")
    else np.full(K, 1 / K)
    for name in RULE_NAMES
}
NAMED = {"map": MAP.digest}


def weights(fits: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((fits, K, 41))


QUESTION = {"weights": weights(1, 1), **RULES}


@pytest.fixture
def hospital(synthetic_folder, tmp_path):
    base = make_quick_sites(synthetic_folder, tmp_path, 1)

    def make(gate: bool = True, **rules) -> Node:
        changes = {**BINARY, "gate": gate, "components": 40, "out": tmp_path}
        config = with_changes(base, {**changes, "cache": base.cache, "sites": base.sites})
        write_features(synthetic_folder, config)
        node = Node(config, tmp_path / "hospital", **rules)
        arrays = {**MAP.to_record(), "class_weights": np.ones(K)}
        assert "refused" not in unpack_values(node.ask("prepare", arrays, **NAMED))
        return node

    return make


def send_incumbent(node: Node) -> None:
    model = {**MAP.to_record(), "weights": weights(1, 0)[0]}
    assert "refused" not in unpack_values(node.ask(INCUMBENT, model))


def test_small_groups_do_not_leave_and_all_counts_are_of_the_same_lesions(hospital):
    node = hospital(least_lesions=LEAST)
    send_incumbent(node)
    found = unpack_arrays(node.ask(PAIRED, QUESTION, **NAMED))
    by_class = [found[name].sum(axis=(1, 2)) for name in Said._fields]
    assert (by_class[0] == by_class[1]).all()
    assert (by_class[0] == by_class[2]).all()
    total = by_class[0].sum()
    assert total > LEAST
    groups = unpack_arrays(node.ask(PAIRED_GROUPS, QUESTION, **NAMED))
    lesions = groups["lesions"]
    assert ((lesions == 0) | (lesions >= LEAST)).all()
    assert 0 < lesions.sum() <= 2 * total
    for name in Said._fields:
        np.testing.assert_array_equal(groups[name].sum(axis=(1, 2, 3)), lesions)


def test_what_no_such_run_asks_is_refused(hospital):
    node = hospital()
    assert node.refusal(PAIRED, QUESTION, **NAMED) is Reason.ORDER
    send_incumbent(node)
    # Several fits score the lesions that they have not seen, which are for training.
    assert node.refusal(PAIRED, {**QUESTION, "weights": weights(2, 1)}, **NAMED) is Reason.FORM
    off = hospital(gate=False)
    for name in (PAIRED, PAIRED_GROUPS):
        assert off.refusal(name, QUESTION, **NAMED) is Reason.FORM


def test_every_record_is_in_the_table_of_the_document():
    sums = allowlist_of("svm").SUMS
    listed = records_of("What leaves where two models are compared")
    assert listed == sums[PAIRED].keys() | sums[PAIRED_GROUPS].keys()
