"""The data commands end to end: generate, check, partition."""

import re
import shutil
from pathlib import Path

from typer.testing import CliRunner

from common.data.dataset import Dataset
from common.errors import DataError
from simulations.cli.data import app
from tests.common.data.tables import folders

runner = CliRunner()


def test_synth_check_and_partition(tmp_path: Path) -> None:
    data, sites = str(tmp_path / "data"), str(tmp_path / "sites")
    result = runner.invoke(app, ["synth", data, "--images", "60", "--seed", "2"])
    assert result.exit_code == 0
    assert "60 synthetic images" in result.output
    result = runner.invoke(app, ["check", data])
    assert result.exit_code == 0
    assert "SYNTHETIC IMAGES" in result.output
    assert "no defects" in result.output
    command = ["partition", data, "--out", sites, "--scheme", "iid", "--sites", "3", "--link"]
    result = runner.invoke(app, [*command, "--test-fraction", "0.3", "--folds", "2"])
    assert result.exit_code == 0
    header, *rows, total = result.output.splitlines()
    assert header.split()[:4] == ["site", "images", "lesions", "test"]
    assert [row.split()[0] for row in rows] == ["site_00", "site_01", "site_02"]
    assert total.split()[1] == "60"
    splits = {
        str(split) for row in rows for split in Dataset.open(Path(sites, row.split()[0])).splits
    }
    assert splits == {"test", "0", "1"}


def test_check_fails_on_a_fatal_defect(synthetic_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic_folder, tmp_path, dirs_exist_ok=True)
    image = next(tmp_path.glob("HAM10000_images*/*.jpg"))
    image.write_bytes(b"")
    result = runner.invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert f"fatal    1 x image that cannot be used: {image.stem} (an image cannot" in result.output


def test_errors_reach_the_caller_as_they_are(tmp_path: Path) -> None:
    command = ["partition", str(tmp_path), "--out", str(tmp_path / "sites")]
    assert isinstance(runner.invoke(app, command).exception, DataError)


def test_check_says_layout_remedies_and_how_many_more_and_exits_by_severity(tmp_path: Path) -> None:
    folder = folders.archive_old(tmp_path / "data")
    table = folder / "metadata.csv"
    table.write_text(table.read_text() + "ISIC_9,HAM,CC-0,,,benign,wart,,,\n" * 60)
    result = runner.invoke(app, ["check", str(folder)])
    assert result.exit_code == 0
    assert result.output.startswith("read as ISIC archive (metadata.csv)\n")
    assert "warning  60 x unknown diagnosis; left out; map it to a class" in result.output
    assert result.output.count("ISIC_9 wart (metadata.csv row ") == 50
    assert "         and 10 more\n" in result.output
    assert runner.invoke(app, ["check", str(folder), "--strict"]).exit_code == 3
    table.unlink()
    assert runner.invoke(app, ["check", str(folder), "--strict"]).exit_code == 1


def test_stats_counts_every_image_and_names_its_angles_exploratory(synthetic_folder: Path) -> None:
    done = runner.invoke(app, ["stats", str(synthetic_folder), "--tone", "--images", "6"])
    assert done.exit_code == 0, done.output
    head, _, tone = done.output.partition(
        "EXPLORATORY: individual typology angle of 6 images, 6 of"
    )
    assert "SYNTHETIC IMAGES" in head
    tables = [block.splitlines() for block in head.split("\n\n")[1:] if block.strip()]
    assert [table[0].split("  ")[0].strip() for table in tables] == [
        "Diagnosis",
        "Age in years",
        "Sex",
        "Localisation",
        "Skin tone, as the table has it",
    ]
    for _, *rows in tables:
        assert sum(int(row.split()[-2]) for row in rows) == 120
    assert len(re.findall(r"^(none|grey-world|shades-of-gray) +(pixels|patches)", tone, re.M)) == 6
    assert "pixels and patches" in tone
