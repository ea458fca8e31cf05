"""Answers on standard output: each form whole, what cannot be read among them, and how it ends."""

import csv
import io
import json
import sys

import pytest

from client.predict.cli import LONG, check_form, predict
from client.predict.images import expand
from client.predict.values import columns, values
from common.answers.answer import Unreadable
from common.errors import ConfigError, DataError
from common.task import HAM10000
from tests.client.predict.fakes import KINDS, Model, image


@pytest.fixture
def found(tmp_path):
    """Find an image of each kind, and two files that cannot be read."""
    for number, kind in enumerate(KINDS):
        (tmp_path / f"{number}-{kind.image}").write_bytes(image(400 + 10 * number))
    (tmp_path / "4-cut.jpg").write_bytes(image()[:300])
    (tmp_path / "5-notes.jpg").write_bytes(b"x")
    return expand([str(tmp_path)], ())


def test_text_has_a_block_for_each_and_a_line_for_what_cannot_be_read(found, capsys):
    assert not predict(Model(), found)
    out, err = capsys.readouterr()
    head, *blocks = out.split("\n\n")
    assert head.startswith("Research software, not a medical device")
    assert Model().about.notes[0] in head
    assert [block.split("\n")[0].partition(":")[0] for block in blocks] == list(map(str, found))
    assert "no answer: an image cannot be decoded" in blocks[4]
    assert blocks[5].count("\n") == 1
    assert err == ""


def test_json_is_one_list(found, capsys):
    assert not predict(Model(), found, as_json=True)
    items = json.loads(capsys.readouterr().out)
    assert [item["image"] for item in items] == list(map(str, found))
    assert [item.get("diagnosis") for item in items] == [*(k.diagnosis for k in KINDS), None, None]
    assert items[5] == values(Unreadable(str(found[5]), items[5]["error"]))


def test_csv_is_one_table(found, capsys):
    assert not predict(Model(), found, as_csv=True)
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert tuple(header) == columns(HAM10000)
    assert [row[0] for row in rows] == list(map(str, found))


def test_a_page_is_written_and_what_cannot_be_read_is_said_too(found, capsys, tmp_path):
    assert not predict(Model(), found, html=tmp_path / "page.html")
    out, err = capsys.readouterr()
    assert out == f"page: {tmp_path / 'page.html'}\n"
    assert err.count("no answer") == err.count("\n") == 2
    assert (tmp_path / "page.html").read_text().count("<article") == len(found)


@pytest.mark.parametrize("form", [{}, {"as_json": True}, {"as_csv": True}])
def test_all_is_well_where_all_could_be_read(found, form, capsys):
    assert predict(Model(), found[:4], **form)
    assert capsys.readouterr().err == ""


def test_maps_are_asked_for_only_where_they_are_shown(found, tmp_path):
    asked = []

    class Asked(Model):
        def answer(self, files, *, evidence):
            asked.append(evidence)
            return super().answer(files, evidence=evidence)

    predict(Asked(), found)
    predict(Asked(), found, html=tmp_path / "page.html")
    assert asked == [False, True]


def test_answers_come_while_later_ones_are_made(found, capsys):
    """What was answered is printed although the model fails later."""

    class Failing(Model):
        def answer(self, files, *, evidence):
            if self.asked:
                raise KeyboardInterrupt
            return super().answer(files, evidence=evidence)

    with pytest.raises(KeyboardInterrupt):
        predict(Failing(), [found[0]] * 40)
    assert capsys.readouterr().out.count("likeliest") >= 16


@pytest.mark.parametrize(("number", "bar"), [(LONG, True), (LONG - 1, False)])
def test_a_long_list_has_a_bar_on_a_terminal(found, number, bar, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    predict(Model(), [found[0]] * number, as_csv=True)
    assert ("image" in terminal.getvalue()) == bar
    assert len(capsys.readouterr().out.splitlines()) == number + 1


def test_a_form_is_refused_before_a_model_is_loaded(tmp_path):
    (tmp_path / "taken.html").touch()
    with pytest.raises(ConfigError, match="choose one"):
        check_form(True, True, None)
    with pytest.raises(ConfigError, match="choose one"):
        check_form(False, True, tmp_path / "page.html")
    for taken in ("taken.html", "none/page.html"):
        with pytest.raises(DataError, match="name a new file"):
            check_form(False, False, tmp_path / taken)
    check_form(True, False, None)
    check_form(False, False, tmp_path / "page.html")
