"""The diagnoses that a model tells apart: codes, full names, which are malignant, an order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Self

from common.errors import ConfigError
from common.text import suggestion


class Diagnosis(NamedTuple):
    """What is known of a code: its full name, and whether it is malignant."""

    name: str
    malignant: bool


KNOWN: Mapping[str, Diagnosis] = MappingProxyType(
    {
        # A precancer or a carcinoma in situ is counted as malignant too.
        "akiec": Diagnosis("actinic keratosis or Bowen's disease", True),
        "bcc": Diagnosis("basal cell carcinoma", True),
        "bkl": Diagnosis("benign keratosis", False),
        "df": Diagnosis("dermatofibroma", False),
        "mel": Diagnosis("melanoma", True),
        "nv": Diagnosis("melanocytic naevus", False),
        "vasc": Diagnosis("vascular lesion", False),
        "scc": Diagnosis("squamous cell carcinoma", True),
        "benign": Diagnosis("benign lesion", False),
        "malignant": Diagnosis("malignant lesion", True),
    }
)
"""Diagnoses by code: those of HAM10000, those that other published tables add, and two groups."""


@dataclass(frozen=True)
class Task:
    """The diagnoses of a run, a model or a data set; a label is an index into ``codes``.

    Attributes
    ----------
    codes : the K diagnoses, in the order of labels and of every array over classes.
    names : their full names.
    malignant : those that are malignant.
    mapping : diagnoses of tables that count as one of `codes`, by their own codes.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    malignant: tuple[str, ...]
    mapping: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        codes: Sequence[str],
        names: Mapping[str, str] = MappingProxyType({}),
        malignant: Sequence[str] = (),
        mapping: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Return a task; what is not said of a known code is as in `KNOWN`.

        Parameters
        ----------
        names : full names of codes.
        malignant : all malignant codes; empty for those that are known to be.

        Raises
        ------
        ConfigError
            If there are fewer than two codes, one stands twice, or something is said of no code.
        """
        if len(codes) < 2:
            raise ConfigError(f"a task has two diagnoses or more, not {len(codes)}; name them")
        if twice := [code for code in codes if list(codes).count(code) > 1]:
            raise ConfigError(f"the diagnosis '{twice[0]}' stands twice in the task; name it once")
        for code in (*names, *malignant, *mapping.values()):
            if code not in codes:
                raise ConfigError(
                    f"'{code}' is no diagnosis of the task{suggestion(code, codes)}; "
                    f"it has {', '.join(codes)}"
                )
        if both := [code for code in mapping if code in codes]:
            raise ConfigError(
                f"the diagnosis '{both[0]}' is mapped and is in the task; choose one of the two"
            )
        known = {code: KNOWN.get(code, Diagnosis(code, False)) for code in codes}
        return cls(
            tuple(codes),
            tuple(names.get(code, known[code].name) for code in codes),
            tuple(malignant) or tuple(code for code in codes if known[code].malignant),
            tuple(sorted(mapping.items())),
        )

    @property
    def n_classes(self) -> int:
        """K, the number of diagnoses."""
        return len(self.codes)

    def name(self, code: str) -> str:
        """Return a diagnosis' full name."""
        return self.names[self.codes.index(code)]

    def mapped(self, code: str) -> str:
        """Return the diagnosis as which a table's code counts; "" if as none."""
        code = dict(self.mapping).get(code, code)
        return code if code in self.codes else ""


HAM10000 = Task.of(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"))
"""The seven of HAM10000, which are the default."""

ISIC2019 = Task.of((*HAM10000.codes, "scc"))
"""The eight of ISIC 2019."""

BINARY = Task.of(("benign", "malignant"))
"""Benign or malignant, as in ISIC 2020."""

TASKS: Mapping[str, Task] = MappingProxyType(
    {"ham10000": HAM10000, "isic2019": ISIC2019, "binary": BINARY}
)
"""Tasks by the names that users give."""


def usual_task(codes: Collection[str]) -> Task:
    """Return the smallest known task that has these codes, else one of exactly these."""
    for task in TASKS.values():
        if set(codes) <= set(task.codes):
            return task
    ordered = [code for code in KNOWN if code in codes]
    return Task.of((*ordered, *sorted(set(codes) - KNOWN.keys())))
