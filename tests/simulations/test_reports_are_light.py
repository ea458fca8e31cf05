"""What turns results into text needs neither Flower nor what computes them."""

import json
import subprocess
import sys

REPORTS = (
    "simulations.audit.report",
    "simulations.cli.summary",
    "simulations.study.advice",
    "simulations.study.findings",
    "simulations.study.headline",
    "simulations.evaluation.judgement",
    "simulations.study.report.charts.all_charts",
    "simulations.study.report.page",
    "simulations.study.report.charts.svg",
    "simulations.study.report.tables.all_tables",
    "simulations.study.report.tidy",
    "simulations.study.report.values",
)
HEAVY = ("flwr", "torch", "sklearn", "scipy", "matplotlib", "onnxruntime", "timm", "opacus")

_IMPORT = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def test_importing_reports_imports_nothing_heavy() -> None:
    arguments = [json.dumps(REPORTS), json.dumps(HEAVY)]
    child = subprocess.run(
        [sys.executable, "-c", _IMPORT, *arguments], capture_output=True, text=True, check=True
    )
    assert json.loads(child.stdout) == []
