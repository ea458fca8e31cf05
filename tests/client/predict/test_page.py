"""The page of answers in a real browser, and as a file."""

import re
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from client.predict.images import Answered, answered
from client.predict.page import Page
from client.predict.shown import ImageFile, Shown
from common.answers.answer import Unreadable
from common.errors import DataError
from common.task import HAM10000
from tests.client.predict.fakes import (
    ABOUT,
    BASE_RATES,
    ELSEWHERE,
    GIVEN,
    KINDS,
    MAP,
    PLAIN,
    REFERRED,
    Model,
    image,
)
from tests.screens import DESK, PHONE, SIZES

HOSTILE = "<img src=x onerror=alert(1)>\u202e&\"'{{ 7*7 }}.jpg"
A4 = {"width": 703, "height": 1000}
"""What is left of a sheet between the margins, in pixels."""

GIVEN_ABOUT = replace(ABOUT, prevalence=GIVEN, prevalence_source="given")


def write(out, files, about=ABOUT):
    with Page(out, about) as page:
        for each in answered(Model(about), files, evidence=True):
            page.add(each)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Write a page with an answer of each kind, what cannot be read, and a hostile name."""
    out = tmp_path_factory.mktemp("page") / "page.html"
    files = [ImageFile(each.image, image(400 + 10 * i)) for i, each in enumerate(KINDS)]
    broken = [ImageFile("cut.jpg", image()[:300]), ImageFile("notes.txt", b"x")]
    write(out, [*files, *broken, ImageFile(HOSTILE, image(800))], GIVEN_ABOUT)
    return out


@pytest.fixture
def open_answers(open_page, page_file):
    """Open the page with all its cards laid out, the far ones too."""

    def opened(size):
        page, complaints, asked = open_page(page_file.as_uri(), size)
        page.evaluate(
            "document.querySelectorAll('.card').forEach(c => c.style.contentVisibility = 'visible')"
        )
        return page, complaints, asked

    return opened


@SIZES
def test_it_fits_asks_for_nothing_and_complains_of_nothing(open_answers, page_file, size):
    page, complaints, asked = open_answers(size)
    for each in page.locator("img").all():
        each.scroll_into_view_if_needed()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.locator("img:not(.map)").count() == 5
    drawn = page.locator("img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth)")
    assert all(drawn)


@SIZES
def test_axe_finds_no_barrier(open_answers, size):
    page, _, _ = open_answers(size)
    page.locator("#all-maps").check()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@SIZES
def test_who_is_to_be_asked_stands_above_all_else_of_a_card(open_answers, size):
    page, _, _ = open_answers(size)
    card = page.locator("#image-2")
    tops = [
        card.locator(part).first.bounding_box()["y"]
        for part in ("h2", ".refer", ".flag", ".note", ".picture", ".likeliest", ".facts")
    ]
    assert tops[:5] == sorted(tops[:5])
    assert max(tops[:4]) < min(tops[4:])
    assert card.locator(".refer li").count() == len(REFERRED.refer)
    assert page.locator("#image-1 .alert").count() == 0


def test_no_medical_device_is_always_in_sight_and_on_every_sheet(open_answers):
    page, _, _ = open_answers(PHONE)
    banner = page.locator(".banner")
    page.locator("#image-4").scroll_into_view_if_needed()
    expect(banner).to_be_in_viewport()
    assert "not a medical device" in banner.text_content()
    page.emulate_media(media="print")
    answered = page.locator(".card:has(.words)")
    assert answered.locator(".device:visible").count() == answered.count() == 5
    page.set_viewport_size(A4)
    assert page.evaluate("document.documentElement.scrollWidth") == A4["width"]
    sheets = page.pdf(prefer_css_page_size=True)
    assert re.findall(rb"/MediaBox ?\[0 0 59[45]\.?\d* 84[12]", sheets)


def test_bars_are_as_long_as_probabilities_and_show_them_before(open_answers):
    page, _, _ = open_answers(DESK)
    for number, answer in enumerate(KINDS, 1):
        rows = page.locator(f"#image-{number} .bars tbody tr")
        assert rows.count() == len(BASE_RATES)
        for row, (code, share) in zip(rows.all(), answer.probabilities.items(), strict=True):
            rail, bar = (row.locator(part).bounding_box()["width"] for part in (".rail", ".bar"))
            assert bar / rail == pytest.approx(share, abs=0.001)
            assert f"({code})" in row.locator("th").text_content()
            assert ("malignant" in row.locator("th").text_content()) == (code in HAM10000.malignant)
    before = page.locator("#image-4 .bars tbody tr:first-child .number").all_text_contents()
    assert before == ["41.0\u00a0%", f"{100 * ELSEWHERE.trained_probabilities['mel']:.1f}\u00a0%"]
    frequencies = page.locator(".frequencies tbody tr:first-child .number").all_text_contents()
    assert frequencies == ["66.9\u00a0%", "40.0\u00a0%"]


def test_each_word_says_its_rule(open_answers):
    page, _, _ = open_answers(DESK)
    card = page.locator("#image-2")
    assert "Rule: likeliest" in card.locator(".likeliest").text_content()
    assert "Rule: balanced" in card.locator(".rare").text_content()
    flags = card.locator(".flag").all_text_contents()
    assert len(flags) == 2
    assert all("Rule: screening" in flag for flag in flags)
    terms = page.locator("#words dt").all_text_contents()
    assert [term for term in terms if term.startswith("Rule")] == [
        *("Rule likeliest", "Rule balanced", "Rule screening")
    ]


def test_a_map_is_switched_on_and_off_and_has_a_caption_or_a_reason(open_answers):
    page, _, _ = open_answers(DESK)
    first, second = (page.locator(f"#image-{number} .map") for number in (1, 2))
    expect(first).to_be_hidden()
    page.locator("#image-1 .map-switch").check()
    expect(first).to_be_visible()
    expect(second).to_be_hidden()
    page.locator("#all-maps").check()
    expect(second).to_be_visible()
    assert first.bounding_box() == page.locator("#image-1 img").first.bounding_box()
    assert page.locator("#image-1 figcaption").text_content() == MAP
    assert page.locator("#image-3 .map").count() == 0
    assert "No evidence map: an SVM" in page.locator("#image-3 figcaption").text_content()


def test_the_overview_links_and_leaves_those_for_a_person(open_answers):
    page, _, _ = open_answers(PHONE)
    assert page.locator("#overview-title").text_content() == "7 images, 3 for a person"
    for link in page.locator(".overview a").all():
        link.click()
        target = page.locator(link.get_attribute("href"))
        expect(target.locator("h2")).to_be_in_viewport()
        assert target.locator("h2").text_content() == link.text_content()
    page.locator("#only-ask").check()
    shown = page.locator(".card:visible h2").all_text_contents()
    assert shown == ["referred.jpg", "cut.jpg", "notes.txt"]
    assert page.locator(".overview tbody tr:visible").count() == 3


def test_a_name_is_text_whatever_it_holds(open_answers):
    page, _, _ = open_answers(DESK)
    name = page.locator(".card h2").last.text_content()
    assert name == HOSTILE.replace("\u202e", "\\u202e")
    assert page.locator("img[src=x]").count() == 0


def test_a_page_is_whole_or_not_there(tmp_path):
    out = tmp_path / "page.html"

    def interrupted():
        with Page(out, ABOUT) as page:
            page.add(Answered(Shown(PLAIN), image()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    write(out, [ImageFile("a.jpg", image())])
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert out.read_text().count("<article") == 1


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none/page\.html cannot be written"):
        write(tmp_path / "none" / "page.html", [])


def test_a_lone_surrogate_and_an_image_without_pixels_are_shown(tmp_path):
    out = tmp_path / "page.html"
    with Page(out, ABOUT) as page:
        page.add(Answered(Shown(Unreadable("\udcff.jpg", "x")), b""))
        page.add(Answered(Shown(PLAIN), b"no pixels"))
    assert "\\udcff.jpg" in out.read_text()
    assert "no picture" in out.read_text()
