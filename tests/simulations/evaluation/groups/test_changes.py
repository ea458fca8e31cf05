"""Changes by group are fairlearn's, paired, and shown where one was made and nowhere else."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from common.data.dataset import Dataset
from common.task import HAM10000
from simulations.evaluation.groups.changes import CHANGED, changes_by_group
from simulations.evaluation.groups.weights import lesion_weights
from simulations.experiments.changes_by_group import main
from simulations.study.judging.predictions import Predictions
from tests.simulations.evaluation.groups.test_figures import (
    CODES,
    FLAG,
    K,
    drawn,
    grouping,
    records,
)

MALIGNANT = np.isin(CODES, HAM10000.malignant)


def test_changes_are_differences_of_fairlearns_figures():
    labels, p, group = drawn(700, 1)
    q = drawn(700, 1, skill=5.0)[1]
    weights = lesion_weights(labels, np.arange(700).astype(str), 0, 50)
    pair = [records(labels, each, weights[0]) for each in (p, q)]
    found = changes_by_group(*pair, weights, [grouping(group)])
    malignant = MALIGNANT[labels]

    def figures(said, rows):
        chance = said[:, MALIGNANT].sum(axis=1)
        called, flagged = said.argmax(axis=1), chance >= FLAG[1]

        def frame(metric, truth, answer):
            return MetricFrame(
                metrics=metric, y_true=truth, y_pred=answer, sensitive_features=rows
            ).by_group

        return {
            "balanced_accuracy": frame(balanced_accuracy_score, labels, called),
            "malignant_sensitivity": frame(recall_score, malignant, flagged),
            "malignant_specificity": frame(recall_score, ~malignant, ~flagged),
            "auc": frame(roc_auc_score, malignant, chance),
        }

    for each in found.groups:
        for in_it, gaps in ((True, each.changes), (False, each.to_rest)):
            before, after = (figures(said, group == each.group) for said in (p, q))
            for name, values in after.items():
                own, rest = (values[side] - before[name][side] for side in (True, False))
                expected = own if in_it else own - rest
                assert gaps[name].value == pytest.approx(expected), name


def test_a_change_is_shown_in_its_group_alone():
    labels, p, group = drawn(3000, 2)
    better, hit = p.copy(), group == "b"
    better[hit] += 0.5 * np.eye(K)[labels[hit]]
    better /= better.sum(axis=1, keepdims=True)
    weights = lesion_weights(labels, np.arange(3000).astype(str), 0, 200)
    pair = [records(labels, each, weights[0]) for each in (p, better)]
    for each in changes_by_group(*pair, weights, [grouping(group)]).groups:
        shown = {name: gap.shown for name, gap in each.changes.items()}
        if each.group == "b":
            assert all(shown[name] for name in ("balanced_accuracy", "auc"))
            assert each.to_rest["auc"].shown
        else:
            assert not any(shown.values())
            # Sums in another order differ in their last bits.
            found = [each.changes[name].value for name in CHANGED]
            assert found == pytest.approx([0] * len(CHANGED), abs=1e-12)
            # No change among few lesions is not taken for certain.
            assert each.changes["balanced_accuracy"].high > 0.003


def test_arms_of_a_study_are_paired_by_their_images(synthetic_folder, tmp_path, capsys):
    dataset = Dataset.open(synthetic_folder)
    rng, n = np.random.default_rng(0), len(dataset)
    p = rng.dirichlet(np.ones(K), n)
    texts = {"sex": "sex", "localization": "localization", "image": "image_id"}
    said = Predictions(
        **{
            name: np.array([getattr(i, key) for i in dataset.images]) for name, key in texts.items()
        },
        lesion=dataset.lesions,
        source=dataset.sources,
        age=np.full(n, np.nan),
        label=dataset.labels,
        predicted=p.argmax(axis=1),
        probabilities=p,
        inside=(p > 0.1).astype(float),
        inside_pooled=(p > 0.1).astype(float),
        flagged=np.zeros((n, 2)),
        distance=np.zeros(n),
    )
    order = rng.permutation(n)
    for arm, parts in (("a", (order[: n // 2], order[n // 2 :])), ("b", (np.arange(n),))):
        for fold, rows in enumerate(parts):
            folder = tmp_path / "cells" / f"{arm}_pooled_fold_{fold}"
            folder.mkdir(parents=True)
            said.select(rows).save(folder / "predictions.npz")
    main(synthetic_folder, tmp_path, "a pooled", "b pooled", "sex")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| female")]
    assert len(rows) == 2
    assert "+0.000" in rows[0]
    assert not any(digit in rows[0].split("|")[3].split("(")[0] for digit in "123456789")
