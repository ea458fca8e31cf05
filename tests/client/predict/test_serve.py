"""The served page in a real browser, and what is refused before it."""

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from client.predict.guard import HEADERS
from client.predict.requests import LARGEST, NAME_HEADER
from tests.client.predict.fakes import image
from tests.screens import DESK, PHONE, SIZES

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("served.py")


class Served:
    """A server in a process of its own, whose folders are empty when it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(SCRIPT)],
            cwd=folder,
            env={**os.environ, **paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        self.url = found[0] if found else pytest.fail(self.process.communicate()[1])

    def stop(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve to the tests of this module; at the end, nothing was written and the end is clean."""
    server = Served(tmp_path_factory.mktemp("served"))
    yield server
    code, errors = server.stop(signal.SIGTERM)
    assert (code, errors) == (0, ""), "it ends well, and opened no file to write"
    assert list(server.folder.iterdir()) == []


@pytest.fixture
def files(tmp_path):
    """Write images of all kinds of files, broken ones and others."""
    contents = {
        "plain.jpg": image(400),
        "referred.png": image(410, kind="PNG"),
        "uncalibrated.webp": image(420, kind="WEBP"),
        "elsewhere.tiff": image(430, kind="TIFF"),
        "cut.jpg": image()[:400],
        "notes.jpg": b"no image",
        "empty.jpg": b"",
        "a <b>&'\"=é\u202e.jpg": image(400),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def give(page, files):
    page.locator("#files").set_input_files(files)


def wait(page, number):
    expect(page.locator("#cards > article")).to_have_count(number, timeout=60_000)


def ask(served, method="POST", path=None, host=None, body=b"", name="x.jpg"):
    """Send a request as no browser would; return the answer's status, headers and text."""
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    connection.putrequest(method, path or f"{address.path}answer", skip_host=True)
    connection.putheader("Host", host or address.netloc)
    connection.putheader("Content-Length", str(len(body)))
    if name is not None:
        connection.putheader(NAME_HEADER, quote(name))
    connection.endheaders(body)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read().decode()


@SIZES
def test_images_become_cards_in_their_order(open_page, served, files, size):
    page, complaints, asked = open_page(served.url, size, offline=False)
    give(page, files)
    wait(page, len(files))
    assert page.locator("#cards h2").all_text_contents() == [
        *(file.name for file in files[:-1]),
        files[-1].name.replace("\u202e", "\\u202e"),
    ]
    assert page.locator("#rows tr").count() == len(files)
    assert page.locator("#count").text_content() == "8 of 8 answered, 4 for a person"
    errors = [page.locator("article.card", has_text=n).locator(".error") for n in ("cut", "notes")]
    assert [error.text_content().partition(" (")[0] for error in errors] == [
        "an image cannot be decoded",
        "no JPEG, PNG, TIFF, BMP, WebP or DICOM image; export it as one",
    ]
    for link in page.locator("#rows a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert complaints == []
    own = urlsplit(served.url).netloc
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {own}


def test_files_are_dropped_and_cleared(open_page, served):
    page, complaints, _ = open_page(served.url, DESK, offline=False)
    given = page.evaluate_handle(
        """bytes => {
            const given = new DataTransfer()
            given.items.add(new File([new Uint8Array(bytes)], 'dropped.jpg'))
            return given
        }""",
        list(image(410)),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": given})
    wait(page, 1)
    assert page.locator(".alert.refer h3").text_content() == "Ask a person"
    page.locator("#clear").click()
    assert page.locator("#cards > *").count() == 0
    assert not page.locator("#overview").is_visible()
    assert complaints == []


@SIZES
def test_what_is_known_of_a_patient_is_in_the_card_and_forgotten_when_cleared(
    open_page, served, files, size
):
    page, complaints, _ = open_page(served.url, size, offline=False)
    page.locator("[name=age]").fill("62,5")
    page.locator("[name=localization]").select_option("back")
    give(page, files[:1])
    wait(page, 1)
    card = page.locator("article.card")
    assert "62.5 years, place back" in card.locator(".facts").text_content()
    assert "changed the answer: from the image alone" in card.locator(".note").last.text_content()
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert complaints == []
    page.locator("#clear").click()
    assert page.locator("[name=localization]").input_value() == ""
    page.locator("[name=age]").fill("450")
    give(page, files[:1])
    wait(page, 1)
    assert card.locator(".error").text_content() == "the age is '450'; give years from 0 to 120"


def test_a_hundred_files_at_once(open_page, served, tmp_path):
    files = [tmp_path / f"{number:03}.jpg" for number in range(100)]
    for number, file in enumerate(files):
        file.write_bytes(image(400 + 10 * (number % 4)))
    page, complaints, _ = open_page(served.url, PHONE, offline=False)
    give(page, files)
    wait(page, 100)
    assert page.locator("#cards h2").all_text_contents() == [file.name for file in files]
    assert page.locator("#count").text_content() == "100 of 100 answered, 25 for a person"
    page.locator("#only-ask").check()
    assert page.locator("article.card:visible").count() == 25
    assert page.locator("#rows tr:visible").count() == 25
    assert complaints == []


@SIZES
def test_axe_finds_no_barrier(open_page, served, files, size):
    page, _, _ = open_page(served.url, size, offline=False)
    for number in (0, len(files)):
        if number:
            give(page, files)
            wait(page, number)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_what_is_not_sent_or_not_answered_has_a_card(open_page, served, tmp_path):
    page, _, _ = open_page(served.url, DESK, offline=False)
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    give(page, [large])
    wait(page, 1)
    page.context.set_offline(True)
    (tmp_path / "late.jpg").write_bytes(image())
    give(page, [tmp_path / "late.jpg"])
    wait(page, 2)
    assert page.locator("#cards h2").all_text_contents() == ["large.jpg", "late.jpg"]
    assert page.locator("#cards .error").all_text_contents() == [
        "larger than 30 MB; save it smaller",
        "the file cannot be read, or the program does not run any more",
    ]
    ids = page.locator("#cards > article").evaluate_all("cards => cards.map(c => c.id)")
    assert len(set(ids)) == 2


def test_only_who_knows_the_token_and_the_host_gets_in(served):
    path, port = urlsplit(served.url).path, urlsplit(served.url).port
    assert ask(served, "GET", path)[0] == 200
    assert ask(served, "GET", path, host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "", f"127.0.0.1:{port}."):
        assert ask(served, "GET", path, host=host or " ")[0] == 421
        assert ask(served, host=host or " ", body=image())[0] == 421
    wrong = ("/", "/x/", path[:-2] + "/", f"/{path}", path.upper(), "//", "/%00/", "/favicon.ico")
    for each in wrong:
        assert ask(served, "GET", each)[0] == 404, each
        assert ask(served, path=f"{each}answer", body=image())[0] == 404


def test_every_answer_forbids_to_keep_frame_or_load(served):
    path = urlsplit(served.url).path
    for reply in (
        ask(served, "GET", path),
        ask(served, "GET", "/"),
        ask(served, "GET", path, host="evil.example"),
        ask(served, body=image()),
    ):
        assert {name: reply[1].get(name) for name in HEADERS} == HEADERS
        policy = reply[1]["content-security-policy"]
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in reply[1]


def test_a_request_is_one_image_of_a_name_and_not_too_large(served):
    status, _, text = ask(served, body=image())
    assert (status, text.count("<article"), text.count("<template>")) == (200, 1, 1)
    status, _, text = ask(served, body=b"\xff\xd8\xff" + bytes(LARGEST))
    assert (status, "larger than 30 MB; save it smaller" in text) == (413, True)
    assert ask(served, body=image(), name=None)[0] == 400
    assert ask(served, "GET")[0] == 405
    assert ask(served, body=image())[0] == 200, "it goes on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_it_well(tmp_path, number):
    server = Served(tmp_path)
    assert ask(server, body=image())[0] == 200
    assert server.stop(number) == (0, "")
