"""Groups in a study's report: the same after a file, in table, chart and list."""

import json
from dataclasses import asdict

import numpy as np

from simulations.study.report.charts.all_charts import draw
from simulations.study.report.tables.all_tables import tables
from simulations.study.report.tidy import tidy
from simulations.study.report.values import from_values, to_values
from tests.simulations.arms import make_arm, make_findings


def test_groups_are_read_from_the_report_as_they_were_and_shown():
    arms = [make_arm("svm", 0.7, spread="natural"), make_arm("net", 0.8, spread="natural")]
    findings = make_findings(arms, {"svm": 0.1, "net": 0.2})
    values = json.loads(json.dumps(to_values(findings, findings.about, [])))
    again = from_values(values)
    for first, second in zip(findings.arms, again.arms, strict=True):
        np.testing.assert_equal(asdict(second.by_group), asdict(first.by_group))
        assert {g.group for g in first.by_group.groups} == {"female", "male", "back", "a"}
    table = next(t for t in tables(again) if t.title == "Groups of lesions")
    assert [row[1] for row in table.rows[:2]] == ["sex: female", "sex: male"]
    gap = again.arms[0].by_group.groups[0].standardised["balanced_accuracy"]
    assert f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})" in next(
        row[-3] for row in table.rows if row[0].startswith("linear SVM")
    )
    chart = next(c for c in draw(again) if c.title == "Gaps between groups")
    assert "sex female" in chart.alternative
    assert any(row[0] == "group gap, one mix" for row in tidy(again))
    old = {
        **values,
        "arms": [{k: v for k, v in a.items() if k != "by_group"} for a in values["arms"]],
    }
    assert "Groups of lesions" not in {t.title for t in tables(from_values(old))}
