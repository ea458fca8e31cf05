"""How many pictures are at two sites, and what to do about them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from common.formats import markdown, markdown_table
from common.json_types import Json, JsonObject
from common.synthetic_note import SYNTHETIC_NOTE, synthetic_note
from common.text import printable

_DO = (
    "Each site's own log names its images that are elsewhere: agree on the site that keeps a "
    "picture, and take its row out of the table at the other, before anything is trained. Else it "
    "counts twice, and may be trained on here and tested on there."
)
_HOW = (
    "Compared were keyed hashes of the pictures. What was encoded again, resized or made brighter "
    "is found; what was rotated, mirrored or cropped by more than some percent, and another "
    "photograph of the lesion, is not."
)


@dataclass(frozen=True)
class SharedPictures:
    """What a comparison of pictures across sites found.

    Attributes
    ----------
    synthetic : whether a site's images are.
    marks : equal where sites had the same secret, by site.
    left_out : why other sites are not in the comparison, by name.
    pictures : numbers of pictures that two sites have, by their names.
    """

    synthetic: bool
    marks: Mapping[str, int]
    left_out: Mapping[str, str]
    pictures: Mapping[tuple[str, str], int]

    def values(self) -> dict[str, Json]:
        """Return everything as JSON."""
        usual = Counter(self.marks.values()).most_common(1)[0][0] if self.marks else 0
        return {
            "synthetic": self.synthetic,
            "sites": list(self.marks),
            "other_secret": [site for site, mark in self.marks.items() if mark != usual],
            "left_out": dict(self.left_out),
            "shared": [
                {"sites": list(names), "pictures": number}
                for names, number in self.pictures.items()
            ],
        }


def as_text(values: JsonObject) -> str:
    """Return what was found in lines."""
    found = [printable(line) for line in _found(values)]
    beside = [printable(line) for line in _beside(values)]
    return "\n".join([*synthetic_note(values["synthetic"]), *found, *beside])


def as_markdown(values: JsonObject) -> str:
    """Return what was found as Markdown, all pairs of sites in a table."""
    rows = [(*each["sites"], f"{each['pictures']:,}") for each in values["shared"]]
    parts = [
        *([SYNTHETIC_NOTE] if values["synthetic"] else []),
        "# Pictures that are at two sites",
        *(markdown(line) for line in [*_found(values), *_beside(values)]),
        _HOW,
        markdown_table(("site", "site", "pictures at both"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def _found(values: JsonObject) -> list[str]:
    both = [each for each in values["shared"] if each["pictures"]]
    if not both:
        return [f"No picture was found at two of {len(values['sites'])} sites."]
    lines = [
        f"{' and '.join(each['sites'])} share {each['pictures']:,} "
        f"picture{'s' * (each['pictures'] > 1)}"
        for each in both
    ]
    return [*lines, _DO]


def _beside(values: JsonObject) -> list[str]:
    """Return what was not compared."""
    secrets = [
        f"{site} has another secret than most: it was not compared with them; the operators' files "
        "'picture_secret' must be the same"
        for site in values["other_secret"]
    ]
    return [*secrets, *(f"left out: {site} {why}" for site, why in values["left_out"].items())]
