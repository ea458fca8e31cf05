"""What the documents promise, as tests read it."""

import re
from pathlib import Path


def listed_records() -> set[str]:
    """Return the names of all records that docs/privacy.md says how they are paid for."""
    text = (Path(__file__).parents[1] / "docs" / "privacy.md").read_text()
    table = text.partition("## Everything that leaves a site")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    assert all(re.match(r" (public|charged|refused)", how) for _, _, how in rows)
    return {name for names, _, _ in rows for name in re.findall(r"`(\w+)`", names)}
