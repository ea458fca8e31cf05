"""What a drawing of matplotlib's says."""

from pathlib import Path
from xml.etree import ElementTree


def texts_of(drawing: Path) -> list[str]:
    """Return the texts in an SVG file: matplotlib draws outlines and says in comments of what."""
    with_comments = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.parse(drawing, ElementTree.XMLParser(target=with_comments))
    return [(each.text or "").strip() for each in root.iter(ElementTree.Comment)]
