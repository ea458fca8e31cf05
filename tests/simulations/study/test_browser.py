"""The report in a real browser: it is whole by itself, and fits a telephone."""

import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

PHONE, DESK = 360, 1280

COMMITTED = Path(__file__).parents[3] / "docs" / "study" / "report.html"


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
def open_report(browser, studied):
    """Open the report and collect what the browser complains of and asks for."""
    pages = []

    def opened(width, scheme="light", page_file=studied.out / "report.html"):
        context = browser.new_context(
            viewport={"width": width, "height": 740}, color_scheme=scheme, offline=True
        )
        page, complaints, asked = context.new_page(), [], []
        pages.append(context)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        return page, complaints, asked

    yield opened
    for context in pages:
        context.close()


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_asks_for_nothing_and_complains_of_nothing(open_report, studied, width, scheme):
    for file in (studied.out / "report.html", COMMITTED):
        page, complaints, asked = open_report(width, scheme, file)
        assert complaints == []
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.title()


def test_ink_is_readable_on_paper_in_both_schemes(open_report):
    """Text and the lines of charts, by the contrast that WCAG 2.2 asks for."""
    for scheme in ("light", "dark"):
        page, _, _ = open_report(DESK, scheme)
        ink, paper, *series = page.evaluate(
            """() => {
                const style = getComputedStyle(document.documentElement)
                const probe = document.body.appendChild(document.createElement('i'))
                return ['ink', 'paper', ...Array.from({length: 6}, (_, i) => 'series-' + i)].map(
                    name => {
                        probe.style.color = style.getPropertyValue('--' + name)
                        return getComputedStyle(probe).color.match(/\\d+/g).map(Number)
                    })
            }"""
        )
        assert _contrast(ink, paper) > 7
        assert all(_contrast(colour, paper) > 3 for colour in series)
        shown = page.evaluate(
            "[...document.querySelectorAll('svg text')].map(t => getComputedStyle(t).fill)"
        )
        assert shown
        assert set(shown) == {f"rgb({', '.join(map(str, ink))})"}


def test_charts_say_what_they_show(open_report):
    page, _, _ = open_report(PHONE)
    charts = page.locator("[role=img]")
    assert charts.count() == 6
    for i in range(charts.count()):
        chart = charts.nth(i)
        assert len(chart.get_attribute("aria-label") or "") > 80
        assert chart.locator("svg").count() == 1
        assert (chart.bounding_box() or {"height": 0})["height"] > 100
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_the_test_sees_what_it_is_for(open_report, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><p style='width: 900px'>x</p><script src='http://localhost:9/x.js'></script>"
        "<script>oops()</script>"
    )
    page, complaints, asked = open_report(PHONE, page_file=bad)
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE
    assert len(complaints) >= 2
    assert "http://localhost:9/x.js" in asked


def _contrast(first, second):
    def luminance(colour):
        parts = [c / 255 for c in colour[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
