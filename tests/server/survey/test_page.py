"""The page of a survey in a real browser: it fits, asks for nothing, and can be read."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from common.config.run import RunConfig
from server.survey.documents import HTML_FILE
from simulations.runtimes.experiment import train
from tests.screens import SIZES


@pytest.fixture(scope="module")
def page_file(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig.read({"method": "statistics"})
    out = tmp_path_factory.mktemp("page") / "out"
    return train(config, synthetic_folder, out, "iid", 8) / HTML_FILE


@SIZES
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_asks_for_nothing_and_breaks_no_rule_of_access(open_page, page_file, size, scheme):
    page, complaints, asked = open_page(page_file.as_uri(), size, scheme)
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.locator("section table").count() == 10
    assert page.locator(".track rect").first.bounding_box()["width"] > 0
    assert Axe().run(page).response["violations"] == []
