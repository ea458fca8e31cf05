"""The report in a real browser: it answers on the first screen, and fits a telephone."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.screens import DESK, PHONE, SIZES

SMALLEST_TEXT = 11

COMMITTED = Path(__file__).parents[3] / "docs" / "study" / "report.html"


@pytest.fixture
def open_report(open_page, studied):
    """Open the report, with all that is folded up unfolded."""

    def opened(size, scheme="light", page_file=studied.out / "report.html", unfolded=True):
        page, complaints, asked = open_page(page_file.as_uri(), size, scheme)
        if unfolded:
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        return page, complaints, asked

    return opened


@SIZES
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_asks_for_nothing_and_complains_of_nothing(open_report, studied, size, scheme):
    for file in (studied.out / "report.html", COMMITTED):
        page, complaints, asked = open_report(size, scheme, file)
        assert complaints == []
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.title()


@SIZES
def test_the_first_screen_answers(open_report, studied, size):
    """The sentence, the plot, three figures, the limits and the contents, without scrolling."""
    for file in (studied.out / "report.html", COMMITTED):
        page, _, _ = open_report(size, page_file=file, unfolded=False)
        shown = [".answer", ".dots", ".tile:nth-child(3)", ".limits", "nav"]
        for part in map(page.locator, shown):
            box = part.bounding_box() or pytest.fail(f"{part} is not shown")
            assert box["width"] > 0
            assert box["x"] + box["width"] <= size[0]
            assert box["y"] + box["height"] <= size[1]
        assert page.locator(".tile").count() == 3
        assert page.locator(".dots circle").count() == page.locator(".dots th[scope=row]").count()


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESK, "dark")])
def test_axe_finds_no_barrier(open_report, studied, size, scheme):
    for file in (studied.out / "report.html", COMMITTED):
        page, _, _ = open_report(size, scheme, file)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_a_keyboard_reaches_and_opens_everything(open_report):
    page, _, _ = open_report(DESK, unfolded=False)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    assert (page.locator(".skip").bounding_box() or {"x": -1})["x"] >= 0
    for link in page.locator("nav a").all():
        link.press("Enter")
        target = page.locator(link.get_attribute("href"))
        assert target.is_visible(), "a link of the contents unfolds its section"
    page.locator("nav a").last.focus()
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const element = document.activeElement
                if (element.tagName === 'SUMMARY' && !element.parentElement.open) element.click()
                return element.tagName === 'BODY' ? '' : element.textContent.trim()
            }"""
        )
        if not focused:
            break
        reached.add(focused)
    summaries = page.locator("summary").all_text_contents()
    assert {text.strip() for text in summaries} <= reached
    assert page.locator("details:not([open])").count() == 0


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
            "[...document.querySelectorAll('figure svg text')].map(t => getComputedStyle(t).fill)"
        )
        assert shown
        assert set(shown) == {f"rgb({', '.join(map(str, ink))})"}


def test_charts_say_what_they_show_and_are_legible(open_report, studied):
    for file in (studied.out / "report.html", COMMITTED):
        page, _, _ = open_report(PHONE, page_file=file)
        charts = page.locator("svg[role=img]")
        assert charts.count() >= 4
        for chart in charts.all():
            assert len(chart.locator("> title").text_content() or "") > 5
            assert len(chart.locator("> desc").text_content() or "") > 80
            assert (chart.bounding_box() or {"height": 0})["height"] > 100
        sizes = page.evaluate(
            """[...document.querySelectorAll('svg text')].map(text => {
                const {a, b} = text.getScreenCTM()  // b, where it is turned
                return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b)
            })"""
        )
        assert min(sizes) >= SMALLEST_TEXT
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_a_phone_shows_the_verdicts(open_report):
    page, _, _ = open_report(PHONE)
    tables = page.locator("table.verdict")
    assert tables.count() == 5
    for table in tables.all():
        for cell in table.locator("tr > :last-child").all():
            box = cell.bounding_box() or pytest.fail("a verdict is not shown")
            assert 0 < box["x"] < box["x"] + box["width"] <= PHONE[0]


def test_the_test_sees_what_it_is_for(open_report, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><p style='width: 900px'>x</p><script src='http://localhost:9/x.js'></script>"
        "<script>oops()</script><img src='data:,'>"
    )
    page, complaints, asked = open_report(PHONE, page_file=bad)
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE[0]
    assert len(complaints) >= 2
    assert "http://localhost:9/x.js" in asked
    assert Axe().run(page).violations_count > 0


def _contrast(first, second):
    def luminance(colour):
        parts = [c / 255 for c in colour[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
