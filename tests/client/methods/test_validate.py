"""What a hospital tells of groups of lesions while a model is judged: none that is small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.methods.validate
from client.egress.allowlist import allowlist_of
from common.answers.group_counts import GroupCounts
from common.config.run import RunConfig
from common.errors import Reason
from common.svm.feature_map import FeatureMap
from common.wire.messages import unpack_arrays, unpack_values
from tests.client.egress.test_guard import Node
from tests.documents import records_of
from tests.sites import N_FEATURES, make_quick_sites, with_changes, write_features

BY = "sex,localization,sex*localization"
LEAST = 6
# Each of both has lesions enough for plain sums.
BINARY = {
    "diagnoses": "binary",
    "mapping": "akiec+bcc+mel->malignant,bkl+df+nv+vasc->benign",
}
TASK = RunConfig.read(BINARY).task
K = TASK.n_classes
RULE = {"calibration": np.ones((2, K)), "base_rates": np.full(K, 1 / K)}
MODEL = {
    **FeatureMap(np.zeros(N_FEATURES), np.eye(N_FEATURES)[:, :K]).to_record(),
    "weights": np.random.default_rng(0).standard_normal((K, K + 1)),
}

Hospital = Callable[..., Node]


@pytest.fixture
def hospital(synthetic_folder: Path, tmp_path: Path) -> Hospital:
    """Make a hospital of given rules that judges a model on all 120 images."""
    base = make_quick_sites(synthetic_folder, tmp_path, 1)

    def make(settings: dict[str, Any] | None = None, **rules: Any) -> Node:
        kept = {
            "sites": base.sites,
            "cache": base.cache,
            "out": tmp_path,
            "predictions": 1,
            **BINARY,
        }
        config = with_changes(base, {**kept, "method": "validate", "by": BY, **(settings or {})})
        write_features(synthetic_folder, config)
        node = Node(config, tmp_path / "hospital", **rules)
        assert "refused" not in unpack_values(node.ask("linear", MODEL))
        return node

    return make


def test_groups_under_the_operators_least_do_not_leave(hospital):
    told = unpack_arrays(hospital(least_lesions=LEAST).ask("groups", RULE))
    exact = unpack_arrays(hospital().ask("groups", RULE))
    assert (exact["lesions"] > 0).sum() > (told["lesions"] > 0).sum() > 2
    assert ((exact["lesions"] > 0) & (exact["lesions"] < LEAST)).any()
    for answer in (told, exact):
        assert answer["confusion"].sum() == 120 * len(BY.split(","))
    assert ((told["lesions"] == 0) | (told["lesions"] >= LEAST)).all()
    for array in told.values():
        assert not array[told["lesions"] == 0].any()


def test_every_record_is_in_the_table_of_the_document():
    listed = records_of("What leaves in an external validation by groups")
    assert listed == allowlist_of("validate").SUMS["groups"].keys()


def test_a_run_that_counts_no_groups_has_no_such_answer(hospital):
    assert hospital({"by": ""}).refusal("groups", RULE) is Reason.ORDER


@pytest.mark.parametrize(
    ("name", "at", "value", "reason"),
    [
        ("lesions", 0, LEAST - 1, Reason.FEW),
        ("confusion", (0, 0, 0), LEAST - 1, Reason.FEW),
        ("calibration", (0, 0, 0), LEAST - 1, Reason.FEW),
        ("screening", (0, 0, 0, 0), LEAST, Reason.UNDECLARED),
        ("confidence", (0, 0), 0.5, Reason.UNDECLARED),
        ("lesions", slice(1), 0, Reason.UNDECLARED),
    ],
)
def test_the_guard_lets_no_small_group_out_whatever_the_method_answers(
    hospital, monkeypatch, name, at, value, reason
):
    node = hospital(least_lesions=LEAST)
    groups = 5 + 29 + 4 * 28 + 1
    sums = GroupCounts.zero(TASK, groups)
    assert unpack_arrays(node.ask("groups", RULE))["lesions"].shape == (groups,)
    array = getattr(sums, name)
    if isinstance(at, slice):
        array = np.zeros(1, np.int64)
    else:
        array[at] = value
    loose = type("Loose", (GroupCounts,), {"to_record": lambda _: {**vars(sums), name: array}})
    monkeypatch.setattr(client.methods.validate, "answer", lambda *_: loose(**vars(sums)))
    assert node.refusal("groups", RULE) is reason
