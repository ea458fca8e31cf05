"""What the documents promise, as tests read it."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def listed_records() -> set[str]:
    """Return the names of all records that docs/privacy.md says how they are paid for."""
    text = (_ROOT / "docs" / "privacy.md").read_text()
    table = text.partition("## Everything that leaves a site")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    assert all(re.match(r" (public|charged|refused)", how) for _, _, how in rows)
    return {name for names, _, _ in rows for name in re.findall(r"`(\w+)`", names)}


def switched_off() -> set[str]:
    """Return the settings that docs/deployment.md lists as switching off what libraries send."""
    text = (_ROOT / "docs" / "deployment.md").read_text()
    table = text.partition("| switched off by |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+=\d)` \|$", table, re.MULTILINE))
