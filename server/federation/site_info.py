"""What sites say about themselves when they join, and which of them do not fit together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from flwr.app import RecordDict
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from common.config.fields import absent
from common.errors import ReplyError
from common.task import KNOWN, Task
from common.text import SiteName
from common.wire.messages import unpack_values

Positive = Annotated[int, Field(ge=1)]
Disclosed = Annotated[Positive | None, BeforeValidator(absent)]


class SiteInfo(BaseModel):
    """What a site says about itself when it joins; None where it does not say.

    A site that counts lesions alone says nothing of features, and one that judges a model not how
    many there are.

    Attributes
    ----------
    classes : the run's diagnoses that it has, or knows where it does not say which it has.
    others : known diagnoses that it has and the run does not.
    metadata : of each column of the run's metadata, whether most of its images have a value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteName
    classes: tuple[str, ...]
    others: tuple[Annotated[str, Field(max_length=100)], ...] = ()
    n_features: Annotated[int, Field(ge=0)] = 0
    features: str = ""
    images: Disclosed
    lesions: Disclosed
    synthetic: bool
    smaller_images: bool | None = None
    unknown_lesions: bool | None = None
    metadata: Annotated[tuple[bool, ...], Field(max_length=100)] = ()
    fingerprint: str
    test_counts: bool = True

    @model_validator(mode="after")
    def _features_have_a_key(self) -> Self:
        if self.n_features and not self.features:
            raise ValueError("it names a number of features and no key of theirs")
        return self


def read_info(reply: RecordDict, task: Task) -> SiteInfo:
    """Read a site's answer to ``join`` in a run of a task.

    Raises
    ------
    ReplyError
        If a fact is missing, unknown or impossible.
    """
    values = unpack_values(reply)
    flags = {"classes": task.codes, "others": tuple(KNOWN)}
    named = {n: _named(n, values[n], codes) for n, codes in flags.items() if n in values}
    try:
        return SiteInfo.model_validate({**values, **named})
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"]))
        raise ReplyError(f"describes itself wrongly: {what}: {first['msg']}") from error


def _named(name: str, flags: object, codes: Sequence[str]) -> list[str]:
    """Return the diagnoses that a site's flags, one for each, say yes to."""
    if not isinstance(flags, list) or [type(flag) for flag in flags] != [bool] * len(codes):
        raise ReplyError(f"describes itself wrongly: {name}: not one flag for each diagnosis")
    return [code for code, flag in zip(codes, flags, strict=True) if flag]


def odd_ones(infos: Mapping[str, SiteInfo], features: str) -> dict[str, str]:
    """Name the sites whose features are not those of the run.

    Name those with the same data as another site too, which must not count twice.

    Parameters
    ----------
    features : key of the run's features; the model names the coordinator's weights. "" where the
        run trains none.
    """
    odd: dict[str, str] = {}
    sizes = Counter(info.n_features for info in infos.values())
    if not sizes:
        return odd
    # Of equally common sizes that of the first site by name.
    n_features = sizes.most_common(1)[0][0]
    owners: dict[str, str] = {}
    for site, info in infos.items():
        owner = owners.setdefault(info.fingerprint, site)
        if owner != site:
            odd[site] = f"has the same data as {owner}"
        elif reason := _misfit(info, features, n_features):
            odd[site] = reason
    return odd


def differing(infos: Mapping[str, SiteInfo], task: Task) -> list[str]:
    """Say of each site which of the run's diagnoses it lacks, and which others it has."""
    lines = []
    for site, info in infos.items():
        lacking = [code for code in task.codes if code not in info.classes]
        parts = [f"has no {', '.join(lacking)}"] if lacking else []
        parts += [f"leaves out {', '.join(info.others)}"] if info.others else []
        if parts:
            lines.append(f"{site} {' and '.join(parts)}")
    return lines


def smaller_cameras(infos: Mapping[str, SiteInfo], resolution: int) -> list[str]:
    """Name, in one line, the sites that have images of fewer pixels than the working resolution.

    Parameters
    ----------
    resolution : pixels of the short side that larger images are reduced to.
    """
    smaller = [site for site, info in infos.items() if info.smaller_images]
    if not smaller:
        return []
    return [
        f"images of fewer than {resolution} pixels on the short side, which are not enlarged to "
        f"them: {', '.join(smaller)}; a smaller 'resolution' makes all cameras alike"
    ]


def lacking_metadata(infos: Mapping[str, SiteInfo], columns: Sequence[str]) -> list[str]:
    """Name, a line for each column of the run's metadata, the sites where most values lack."""
    lines = []
    for number, column in enumerate(columns):
        lacking = [s for s, info in infos.items() if info.metadata[number : number + 1] == (False,)]
        if lacking:
            lines.append(
                f"metadata '{column}' is unknown in most images of {', '.join(lacking)}, which are "
                "seen without it; the site's log says how many, `fedderm data check` there "
                "says why"
            )
    return lines


def _misfit(info: SiteInfo, features: str, n_features: int) -> str:
    """Return why a site's features are not those of the run; "" if they are."""
    if info.features != features:
        return (
            f"has features of another network, weights or views (key {info.features[:12]}, "
            f"this run's are {features[:12]})"
        )
    if info.n_features != n_features:
        return f"has {info.n_features} features an image, most sites have {n_features}"
    return ""
