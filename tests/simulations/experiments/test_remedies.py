"""Runs are compared on the lesions that they held out, each with its thresholds."""

from pathlib import Path

import numpy as np
import pytest

from common.data.dimensions import read_dimensions
from common.errors import ConfigError
from simulations.experiments.remedies import compared
from simulations.runtimes.experiment import simulate
from tests.sites import make_quick_sites, with_changes


def test_thresholds_by_groups_of_too_few_lesions_change_nothing(
    synthetic_folder: Path, tmp_path: Path
) -> None:
    base = make_quick_sites(synthetic_folder, tmp_path, 2)
    changes = {"c": 1e-4, "out": tmp_path / "run", "screening_by": "sex"}
    run = with_changes(base, changes)
    simulate(run)
    found = compared(synthetic_folder, [tmp_path / "run"], run.cache, 0.5)
    plain, grouped = found.remedies
    assert grouped.name == f"{plain.name}, thresholds by sex"
    assert found.models == [plain]
    dataset = found.held_out.dataset
    assert all(len(set(found.fold[dataset.lesions == name])) == 1 for name in dataset.lesions)
    tables = list(found.tables(read_dimensions("sex,site")[0]))
    malignant = tables[tables.index(next(t for t in tables if "malignant lesions" in t)) + 1]
    rows = [line for line in malignant.splitlines() if "thresholds by sex" in line]
    # The test lesions of each sex: figures are as before, every difference is nothing.
    assert len(rows) == 3
    for row in rows:
        for cell in row.split(" | ")[2:]:
            assert "-" in cell[:2] or "; +0.000 (+0.000 to +0.000)" in cell
    assert sum("; +0.000" in row for row in rows) > 0
    np.testing.assert_allclose(found.weights[0].sum(), len(set(dataset.lesions)))


def test_a_sensitivity_that_is_none_is_refused(synthetic_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the sensitivity is 95"):
        compared(synthetic_folder, [tmp_path], tmp_path, 95)
