"""A federation is described as its pooled data would be, and its sites hear what to change."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.methods.statistics import _grouped
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.groups import COLUMNS, HISTOGRAMS
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import ReplyError
from common.statistics.data_counts import DataCounts
from common.task import HAM10000
from server.federation.question import Answers
from server.federation.site_info import SiteInfo
from server.methods.statistics import _refuse_impossible
from server.run.folder import STATISTICS_FILE
from server.survey.documents import HTML_FILE, MARKDOWN_FILE, as_html, as_markdown, as_text
from server.survey.survey import Survey
from simulations.data.partition import partition, write_sites
from simulations.runtimes.experiment import simulate


def run_of(folder: Path, **settings: Any) -> RunConfig:
    places = {"sites": folder / "sites", "cache": folder / "cache"}
    return RunConfig.read({**places, "method": "statistics", **settings})


@pytest.fixture(scope="module")
def sites(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three sites: one says scc and a word of its own, one has no ages, one no lack."""
    folder = tmp_path_factory.mktemp("three")
    dataset = Dataset.open(synthetic_folder)
    parts = partition(dataset, "iid", 3, 1.0, 0)
    write_sites(dataset, parts, folder / "sites", link=True)
    first, second, _ = (each / METADATA_FILE for each in sorted((folder / "sites").iterdir()))
    text = first.read_text().replace(",akiec,", ",scc,").replace(",back", ",<b>my back</b>")
    first.write_text(text)
    header, *rows = second.read_text().splitlines()
    age = header.split(",").index("age")
    cells = [[*row.split(",")[:age], "", *row.split(",")[age + 1 :]] for row in rows]
    second.write_text("\n".join([header, *map(",".join, cells)]))
    return folder


@pytest.fixture(scope="module")
def plain(sites: Path) -> dict[str, Any]:
    return simulate(run_of(sites, out=sites / "plain"))


def pooled(sites: Path) -> DataCounts:
    """Count the images of all sites at one, whose lesions have names of their own already."""
    opened = [Site(each, run_of(sites)) for each in sorted((sites / "sites").iterdir())]
    each = [DataCounts.measure(_grouped(site), HAM10000) for site in opened]
    return each[0] + each[1] + each[2]


def test_the_total_is_that_of_the_pooled_data_and_so_are_secure_sums(sites, plain):
    secure = simulate(run_of(sites, out=sites / "secure", secure=True))
    expected = pooled(sites)
    for values in (plain, secure):
        for name in HISTOGRAMS:
            images, lesions = getattr(expected, name).tolist()
            found = values["histograms"][name]["total"]
            assert found == {"images": images, "lesions": lesions}
        assert [values["columns"][c]["sites"] for c in COLUMNS] == expected.columns.tolist()
    assert len(plain["histograms"]["age"]["by_site"]) == 3
    assert secure["histograms"]["age"]["by_site"] == {}
    assert [*secure["change"]] == ["all sites"]


def test_sites_hear_what_to_change(sites, plain):
    first, second, third = sorted(each.name for each in (sites / "sites").iterdir())
    changes = {site: " ".join(lines) for site, lines in plain["change"].items()}
    assert "images of scc, squamous cell carcinoma" in changes[first]
    assert "add scc to 'diagnoses', or say in 'mapping'" in changes[first]
    assert "of a localisation that is in no list" in changes[first]
    assert "no column 'age', which 2 of 3 sites have" in changes[second]
    assert third not in changes
    assert "akiec" in plain["lacking"][first]
    assert "my back" not in json.dumps(plain)


def test_a_run_of_the_task_that_sites_have_has_less_to_change(sites, tmp_path):
    values = simulate(run_of(sites, out=tmp_path / "run", diagnoses="isic2019"))
    assert "scc" not in json.dumps(values["change"])
    assert values["diagnoses"][-1] == "scc"


def test_the_folder_has_three_files_and_no_model(sites, plain):
    run = sites / "plain"
    assert {file.name for file in run.iterdir()} == {
        *(STATISTICS_FILE, MARKDOWN_FILE, HTML_FILE),
        *("config.json", "rounds.jsonl"),
    }
    assert (run / MARKDOWN_FILE).read_text() == as_markdown(plain)
    assert (run / HTML_FILE).read_text() == as_html(plain)
    assert as_text(plain).splitlines()[2].startswith("3 sites have 120 images of ")
    for text in (as_text(plain), as_markdown(plain), as_html(plain)):
        assert "Synthetic images" in text


def test_a_finished_run_asks_nobody_again(sites, plain):
    config = run_of(sites, out=sites / "plain")
    rounds = (config.out / "rounds.jsonl").read_bytes()
    assert simulate(config) == plain
    assert (config.out / "rounds.jsonl").read_bytes() == rounds


def test_nothing_of_a_site_becomes_markup():
    values = {"images": None, "lesions": None, "synthetic": False, "fingerprint": ""}
    info = SiteInfo(site="a", classes=(), **values)
    zero = DataCounts.zero(HAM10000)
    left_out = {"node 1": "<script>alert(1)</script> | \x1b[2K"}
    counts = Answers(zero, ["a"], {"a": zero})
    values = Survey(HAM10000, False, {"a": info}, left_out, counts).values()
    assert "<script" not in as_html(values) + as_markdown(values).replace("\\<", "")
    assert "\x1b" not in as_html(values) + as_markdown(values) + as_text(values)
    assert "and 1 with too few lesions to be counted" in as_text(values)
    assert "lacks" not in as_text(values)


def test_counts_that_no_site_can_have_are_refused(sites):
    counts = pooled(sites)
    zero = DataCounts.zero(HAM10000).to_record()
    with pytest.raises(ReplyError, match="'diagnosis' cannot be counted on 119 images"):
        _refuse_impossible(counts, 119)
    for changed in (
        {"sex": np.array([[1, 0, 0, 0, 0], [2, 0, 0, 0, 0]])},
        {"columns": zero["columns"] + 2},
        {"filled": zero["filled"] + [[[100], [0]]]},
    ):
        with pytest.raises(ReplyError):
            _refuse_impossible(DataCounts(**{**zero, **changed}), 120)
