"""docs/answers.md lists what answers hold, no more and no less."""

from dataclasses import fields

from client.predict.values import columns as csv_columns
from client.predict.words import RULES
from common.answers.answer import TARGETS, Answer, Metadata, PredictionSet, Screening
from common.task import HAM10000
from tests.documents import ROOT, tables

PAGE = ROOT / "docs" / "answers.md"


def first_cells(table):
    return [cell.strip("`") for cell, _ in table[1:]]


def test_every_key_of_json_is_listed_in_its_order():
    rules, *objects, _, _ = tables(PAGE)
    assert first_cells(rules) == list(RULES)
    for table, kind in zip(objects, (Answer, Screening, PredictionSet, Metadata), strict=True):
        assert first_cells(table) == [f.name for f in fields(kind) if f.name != "task"]


def test_every_column_of_csv_is_listed_in_its_order():
    listed = []
    for cell, _ in list(tables(PAGE))[-2][1:]:
        names = [name.strip("` ") for name in cell.split(",")]
        each = next((p for p in ("CODE", "TARGET") if p in cell), None)
        listed.append((names, {"CODE": HAM10000.codes, "TARGET": TARGETS, None: ("",)}[each], each))
    found = {n.replace(e or "-", v) for names, values, e in listed for n in names for v in values}
    assert found == set(csv_columns(HAM10000))
    plain = [name for names, _, each in listed if each is None for name in names]
    assert plain == [name for name in csv_columns(HAM10000) if name in plain]
