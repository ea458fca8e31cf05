"""Write a study's page and Markdown anew from its numbers: ``... study.report report.json``."""

import json
import sys
from pathlib import Path

from common.storage.reading import read_text
from simulations.study.report.page import write_pages
from simulations.study.report.values import from_values


def main(file: Path) -> None:
    """Read ``report.json`` and write the two files beside it."""
    findings = from_values(json.loads(read_text(file)))
    write_pages(file.parent, findings, findings.about)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
