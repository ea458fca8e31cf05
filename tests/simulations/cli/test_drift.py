"""New images, week by week, beside what a model said of lesions before."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import Dataset
from simulations.runtimes.experiment import with_splits
from tests.commands import Type, is_one_error

pytestmark = pytest.mark.usefixtures("features_at_hand")


@pytest.fixture
def weeks(synthetic_folder: Path, cached, tmp_path: Path) -> list[Path]:
    """Write two weeks of images, each thrice: those held out, and such as show no naevus."""
    dataset = with_splits(synthetic_folder, cached)
    one = np.unique(dataset.lesions, return_index=True)[1]
    parts = {
        "week-1": one[dataset.splits[one] == "test"],
        "week-2": one[dataset.labels[one] != dataset.task.codes.index("nv")],
    }
    return [_written(tmp_path / name, dataset.select(rows)) for name, rows in parts.items()]


def _written(folder: Path, dataset: Dataset) -> Path:
    folder.mkdir()
    for image in dataset.images:
        for copy in range(3):
            (folder / f"{image.image_id}-{copy}.jpg").write_bytes(dataset.read(image.image_id))
    return folder


def test_a_week_without_naevi_is_an_alarm(fedderm: Type, finished, weeks, tmp_path):
    out = tmp_path / "counts.json"
    code, said, error = fedderm("drift", finished, *weeks, "--out", out)
    assert code == 3, error
    assert "Changed, at a chance of 0.05" in said
    # Here no image looks like the lesions: what the cache says of their looks is random.
    assert "week-1 (unlike lesions); week-2 (diagnoses, " in said
    counts = json.loads(out.read_text())["weeks"]
    assert sum(counts["week-2"]["likeliest"]) == len(list(weeks[1].iterdir()))


def test_counts_of_sites_are_added(fedderm: Type, finished, weeks, tmp_path):
    halves = []
    for number in range(2):
        part = tmp_path / f"site-{number}" / "week-1"
        part.mkdir(parents=True)
        for file in sorted(weeks[0].iterdir())[number::2]:
            (part / file.name).write_bytes(file.read_bytes())
        halves.append(part)
    files = [tmp_path / name for name in ("whole.json", "first.json", "both.json")]
    fedderm("drift", finished, weeks[0], "--out", files[0])
    fedderm("drift", finished, halves[0], "--out", files[1])
    fedderm("drift", finished, halves[1], "--add", files[1], "--out", files[2])
    whole, both = (json.loads(file.read_text()) for file in (files[0], files[2]))
    assert both["weeks"] == whole["weeks"]


def test_weeks_are_compared_with_usual_ones(fedderm: Type, finished, weeks, tmp_path):
    usual = tmp_path / "usual.json"
    fedderm("drift", finished, weeks[1], "--out", usual)
    code, said, error = fedderm("drift", finished, *weeks, "--usual", usual)
    assert code == 3, error
    assert "week-1 (diagnoses, " in said
    assert "week-2 (unlike lesions)" in said


def test_another_camera_is_named(fedderm: Type, finished, weeks, synthetic_folder, tmp_path):
    """By a federation's statistics, and by earlier weeks, of pictures that were less bright."""
    survey, usual = tmp_path / "survey", tmp_path / "usual.json"
    code, _, error = fedderm("simulate", synthetic_folder, "--out", survey, "method=statistics")
    assert code == 0, error
    fedderm("drift", finished, weeks[0], "--out", usual)
    before = [("--statistics", survey), ("--usual", usual)]
    for which in before:
        said = fedderm("drift", finished, weeks[0], *which)[1]
        assert "brightness: stability (p)" in said
        assert "another camera" not in said
    _darken(survey / "run" / "statistics.json", "histograms", "brightness", "total", "images")
    _darken(usual, "weeks", "week-1", "brightness")
    for which in before:
        code, said, error = fedderm("drift", finished, weeks[0], *which)
        assert code == 3, error
        assert "brightness)" in said
        assert "as by another camera or light" in said
    assert is_one_error(*fedderm("drift", finished, weeks[0], "--statistics", finished))


def _darken(file: Path, *place: str) -> None:
    """Move the counts at a place of a JSON file three groups down."""
    values = json.loads(file.read_text())
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    counts = inner[place[-1]]
    inner[place[-1]] = [*counts[3:], *counts[:3]]
    file.write_text(json.dumps(values))


def test_what_cannot_be_compared_is_one_line(fedderm: Type, finished, weeks, tmp_path):
    assert is_one_error(*fedderm("drift", finished))
    counts = tmp_path / "counts.json"
    fedderm("drift", finished, weeks[0], "--out", counts)
    said = json.loads(counts.read_text())
    for changed, message in (
        ({**said, "model": "0" * 64}, "of another model"),
        ({**said, "weeks": {"other": said["weeks"]["week-1"]}}, "has the weeks other"),
        ({**said, "weeks": {"week-1": {}}}, "holds no counts"),
        ({"weeks": {}}, "holds no counts"),
    ):
        counts.write_text(json.dumps(changed))
        got = fedderm("drift", finished, weeks[0], "--add", counts)
        assert is_one_error(*got)
        assert message in got[2]


def test_a_few_images_are_no_week(fedderm: Type, finished, weeks, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted(weeks[1].iterdir())[:5]:
        (few / file.name).write_bytes(file.read_bytes())
    code, said, _ = fedderm("drift", finished, few)
    assert code == 0
    assert "fewer than 20 images" in said
