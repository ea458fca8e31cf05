"""Data that several rooms test on."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.workermanage import Producer

from simulations.data.synthetic import write_synthetic
from tests import examples, workers

# Threads that wait in a busy machine do so asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
settings.load_profile(examples.USUAL)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers.long_first(items)


def pytest_xdist_auto_num_workers() -> int:
    return workers.number_of_workers()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> workers.ByModule:
    config.option.loadscopereorder = False  # else what has most tests is begun first
    return workers.ByModule(config, log)


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate 120 images; tests must not change them."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, images=120, seed=1)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Find HAM10000, or skip the test."""
    default = Path(__file__).parents[2] / "shared" / "ham10000"
    folder = Path(os.environ.get("FEDDERM_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no HAM10000 at {folder}; set FEDDERM_DATA")
    return folder


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the weights of a small network; tests must not change them."""
    from tests.finetuning import write_network  # it imports PyTorch

    return write_network(tmp_path_factory.mktemp("network") / "weights.safetensors")


@pytest.fixture(scope="session")
def browser_runtime() -> Path:
    """Find ONNX Runtime for the browser, as `make browser` installs it, or skip the test."""
    folder = Path(__file__).parents[1] / ".venv/browser/node_modules/onnxruntime-web/dist"
    if not folder.is_dir():
        pytest.skip("no ONNX Runtime for the browser; `make browser` installs it by npm")
    return folder


@pytest.fixture(scope="module")
def browser():
    """Start the Chromium of this machine, or skip the test."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox of its own, which root in a container cannot have.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Open a page and collect what the browser complains of and asks for."""
    contexts = []

    def opened(url, size, scheme="light", offline=True):
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=offline
        )
        page, complaints, asked = context.new_page(), [], []
        contexts.append(context)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page, complaints, asked

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tensors cross the wire in single precision, where a test is of all but the rounding."""
    monkeypatch.setattr("common.finetune.half_precision.HALF", "<f4")
