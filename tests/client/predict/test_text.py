"""Answers as text, JSON and CSV: the same answer, in forms that hold whatever a name holds."""

import csv
import io
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.predict.text import block
from client.predict.values import columns, row, values
from client.predict.words import percent
from common.answers.answer import TARGETS, Answer, Metadata, Unreadable
from common.task import HAM10000
from tests.client.predict.fakes import (
    ELSEWHERE,
    KINDS,
    KNOWN,
    PLAIN,
    REFERRED,
    TRAINED,
    UNCALIBRATED,
    UNREADABLE,
)

TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)
EACH = pytest.mark.parametrize("answer", KINDS, ids=lambda answer: answer.image)


def said(answer):
    """Return a block's text without its line breaks, and its labels in their order."""
    lines = block(answer).splitlines()
    return " ".join(" ".join(lines).split()), [line[2:16].strip() for line in lines[1:]]


def cells(answer):
    """Read a row as a program does."""
    out = io.StringIO()
    csv.writer(out).writerows([columns(HAM10000), row(answer, HAM10000)])
    (found,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    return found


@EACH
def test_a_person_reads_the_likeliest_with_its_probability_and_whether_it_is_malignant(answer):
    text, labels = said(answer)
    kind = "malignant" if answer.malignant else "not malignant"
    name = HAM10000.name(answer.diagnosis)
    probability = f"{100 * answer.probability:.1f} %"
    assert f"likeliest {name} ({answer.diagnosis}), {probability}, {kind}" in text
    assert text.startswith(answer.image)
    assert next(filter(None, labels)) == ("ask a person" if answer.refer else "likeliest")


def test_what_asks_for_a_person_stands_first_with_all_its_reasons():
    text, _ = said(REFERRED)
    assert text.startswith(f"referred.jpg ask a person refer to a person: {REFERRED.refer[0]}")
    assert REFERRED.refer[1] in text
    assert REFERRED.notes[0] in text
    assert "refer" not in said(PLAIN)[0]


def test_each_word_says_its_rule_and_each_promise_what_it_rests_on():
    text, _ = said(REFERRED)
    assert (
        "stands out for how rare it is: dermatofibroma (df), 6.8 %: 5.7 times its base rate "
        "(rule balanced)"
    ) in text
    assert (
        "screening melanoma flagged: 5.2 % is at least the threshold of 4.0 % (sensitivity 95.0 % "
        "(95 % interval 91.2 to 97.5), specificity 61.8 % (60.4 to 63.2), on calibration lesions)"
    ) in text
    assert (
        "not excluded melanocytic naevus (nv), dermatofibroma (df), melanoma (mel) (the diagnosis "
        "is in such a set for 95 % of new lesions of each diagnosis, if they are like the 812 "
        "calibration lesions; nothing is promised for df, vasc, of which there are too few)"
    ) in text
    assert "next dermatofibroma (df), 6.8 %: 76.6 points behind" in text
    assert "2.43 from the training images" in text


def test_what_is_not_known_is_not_said():
    text, labels = said(UNCALIBRATED)
    assert not {"screening", "distance", "stands out", "before", "note"} & set(labels)
    assert "not excluded unknown: this model has no calibration lesions" in text


def test_other_frequencies_show_what_was_likeliest_before():
    text, _ = said(ELSEWHERE)
    assert "at the training sites' frequencies: likeliest melanocytic naevus (nv), 83.4 %" in text


def test_what_the_patient_changed_stands_beside_what_the_image_alone_says():
    text, labels = said(KNOWN)
    assert (
        "patient 62.5 years, place back: it changed nv from 83.4 % to 38.0 %, mel from 5.2 % to "
        "41.0 %, bkl from 3.0 % to 15.0 %"
    ) in text
    assert "from the image alone the likeliest is melanocytic naevus (nv), 83.4 %" in text
    assert "the image alone is flagged for melanoma" in text
    assert not {"patient", "without it"} & {label for kind in KINDS for label in said(kind)[1]}
    same = replace(KNOWN, metadata=Metadata({"sex": "male"}, "mel", KNOWN.probabilities))
    text, labels = said(same)
    assert "patient male: it changed next to nothing" in text
    assert "without it" not in labels
    found = cells(KNOWN)
    assert (found["age"], found["sex"], found["localization"]) == ("62.5", "", "back")
    assert (found["diagnosis_without"], found["flagged_without"]) == ("nv", "mel")
    assert float(found["probability_without_nv"]) == TRAINED["nv"]


def test_lines_fit_a_terminal_and_keep_numbers_whole():
    for answer in (*KINDS, KNOWN):
        lines = block(answer).splitlines()
        assert max(map(len, lines)) <= 100
        assert not any(line.strip().startswith("%") for line in lines)


@given(TEXTS, TEXTS)
def test_no_name_forges_a_line(name, error):
    assert block(Unreadable(name, error)).count("\n") == 1
    usual = block(PLAIN).count("\n")
    text = block(replace(PLAIN, image=name))
    assert text.count("\n") == usual
    assert len(text.splitlines()) == usual
    assert text.replace("\n", "").isprintable()


@given(st.floats(0, 1))
def test_no_probability_is_called_certain_or_impossible(share):
    shown = percent(share)
    assert shown not in ("0.0 %", "100.0 %")
    if shown[0].isdigit():
        assert float(shown.removesuffix(" %")) == pytest.approx(100 * share, abs=0.0501)


@EACH
def test_json_has_the_fields_of_the_answer(answer):
    found = json.loads(json.dumps(values(answer), allow_nan=False))
    assert list(found) == [f.name for f in fields(Answer) if f.name != "task"]
    assert found["probabilities"] == dict(answer.probabilities)
    assert next(iter(found["probabilities"])) == answer.diagnosis
    if answer.prediction_set:
        assert found["prediction_set"]["diagnoses"] == list(answer.prediction_set.diagnoses)
    assert [rule["target"] for rule in found["screening"]] == [r.target for r in answer.screening]


def test_json_of_what_cannot_be_read_is_told_apart_by_its_keys():
    assert values(UNREADABLE) == {"image": "broken.jpg", "error": UNREADABLE.error}
    assert values(replace(PLAIN, times_base_rate=float("nan")))["times_base_rate"] is None


@EACH
def test_csv_holds_the_numbers_exactly(answer):
    found = cells(answer)
    assert tuple(found) == columns(HAM10000)
    for code in HAM10000.codes:
        assert float(found[f"probability_{code}"]) == answer.probabilities[code]
        trained = found[f"trained_probability_{code}"]
        known = answer.trained_probabilities
        assert float(trained) == known[code] if known else trained == ""
    assert found["malignant"] == ("true" if answer.malignant else "false")
    assert found["distance"] == ("" if answer.distance is None else repr(answer.distance))
    assert found["refer"].split("; ") == list(answer.refer or ("",))
    rules = {rule.target: rule for rule in answer.screening}
    for target in TARGETS:
        shown = found[f"screening_{target}_sensitivity_high"]
        assert shown == (repr(rules[target].sensitivity_interval[1]) if target in rules else "")
    if answer.prediction_set:
        assert found["prediction_set"].split("; ") == list(answer.prediction_set.diagnoses)


def test_csv_of_what_cannot_be_read_has_the_same_columns():
    found = cells(UNREADABLE)
    assert {name: cell for name, cell in found.items() if cell} == {
        "image": "broken.jpg",
        "error": UNREADABLE.error,
    }


@given(TEXTS, TEXTS)
def test_no_cell_is_a_formula_or_breaks_a_line(name, text):
    for answer in (
        Unreadable(name, text),
        replace(PLAIN, image=name, notes=(text,), refer=(text,)),
    ):
        made = dict(zip(columns(HAM10000), row(answer, HAM10000), strict=True))
        assert cells(answer) == made
        for column in ("image", "error", "notes", "refer"):
            assert made[column].isprintable()
            assert not made[column].strip().startswith(("=", "+", "-", "@"))


def test_a_formula_in_a_name_is_shown_behind_an_apostrophe():
    for name in ("=1+1.jpg", "+1.jpg", "-1.jpg", "@x.jpg", " =x.jpg", "\t=x.jpg", "＝x.jpg"):  # noqa: RUF001
        assert cells(Unreadable(name, "x"))["image"].startswith(("'", "\\t="))
    assert cells(replace(PLAIN, times_base_rate=-1.0))["times_base_rate"] == "-1.0"
