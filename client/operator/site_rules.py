"""What the operator of a hospital decides: where its data lie, and what may leave it.

One TOML file, read again for every question, so that a change holds from the next one on. Its
folders may be given relative to its own.
"""

import tomllib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from common.config.private import Unit
from common.errors import ConfigError
from common.methods import METHODS, MethodName
from common.storage.reading import read_bytes
from common.text import SiteName, explain, matching

SEALS = Path("~/.local/state/fedderm")
"""Where seals are kept by default."""

Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Rules:
    """What may leave a hospital, whatever a run's configuration says; 0 is no such rule.

    Attributes
    ----------
    methods : the methods in which the hospital takes part.
    epsilon : most that all private runs together may spend; 0 allows no private run.
    delta : largest chance that a private run's epsilon does not hold.
    expected_lesions : lesions, or patients, that the site may ever have; at most 1 / delta, else a
        private run might publish one of them as it is.
    unit : column that names what private runs protect, with all of its images.
    test_fraction : share of the lesions held out for testing, where the table has no splits.
    test_counts : whether exact counts on lesions held out for testing leave in private runs too.
    least_sites : least number of sites in a secure sum; with 0 a sum need not be secure.
    least_lesions : least lesions of each class that the site has, for plain sums to leave; a sum
        over fewer would show single patients.
    least_count : smallest count, but 0, that leaves outside of a secure sum.
    min_active : smallest ``min_active`` of a run; a gradient of fewer lesions would show single
        patients.
    rounds : most answers with an SVM's losses and gradients, over all runs.
    questions : most answers about the site's images, refusals included, over all runs.
    rounds_a_day : most answers in 24 hours.
    megabytes_a_day : most megabytes sent in 24 hours.
    peers : file of the public keys of the sites that may be in a secure sum.
    pins : file of the hashes of code, weights and network.
    picture_secret : file of the secret under which pictures are compared with other sites'; without
        it they are not.
    """

    methods: tuple[MethodName, ...] = tuple(METHODS)
    epsilon: Annotated[float, Field(ge=0)] = 0.0
    delta: Annotated[float, Field(gt=0, lt=1e-2)] = 1e-5
    expected_lesions: Annotated[int, Field(ge=1, strict=True)] = 10_000
    unit: Unit = "lesion_id"
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    test_counts: bool = False
    least_sites: Count = 0
    least_lesions: Count = 20
    least_count: Count = 0
    min_active: Annotated[int, Field(ge=1, strict=True)] = 20
    rounds: Count = 10_000
    questions: Count = 50_000
    rounds_a_day: Count = 0
    megabytes_a_day: Count = 0
    peers: Path | None = None
    pins: Path | None = None
    picture_secret: Path | None = None

    @model_validator(mode="after")
    def _nothing_published(self) -> Self:
        if self.delta * self.expected_lesions > 1:
            raise ValueError(
                f"with 'delta' {self.delta:g} one of {self.expected_lesions} 'expected_lesions' "
                "might be published as it is; set a smaller delta"
            )
        return self


class Operator(BaseModel):
    """The file of a hospital's operator.

    Attributes
    ----------
    name : the name of the site, as the others know it.
    data : folder of the images and their table.
    cache : folder of features, which can be computed again.
    state : folder of what must not be lost: ledger, identity, egress log.
    seals : folder of the seals, which show when an older copy of these is put back.
    weights : file of the pretrained network, if it is not the built-in one.
    superlink : host and port of the coordinator.
    port : the port of this machine at which Flower's processes talk to each other.
    rules : what may leave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    name: SiteName
    data: Path
    cache: Path = Path("cache")
    state: Path = Path("state")
    seals: Path = SEALS
    weights: Path | None = None
    superlink: Annotated[str, matching(r"[\w.:\[\]-]+:\d+", "write HOST:PORT")]
    port: Annotated[int, Field(ge=1, le=65535)] = 9094
    rules: Rules = Rules()

    @field_validator("data", "cache", "state", "seals", "weights")
    @classmethod
    def _placed(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return _absolute(path, info)

    @field_validator("rules")
    @classmethod
    def _files_placed(cls, rules: Rules, info: ValidationInfo) -> Rules:
        files = (rules.peers, rules.pins, rules.picture_secret)
        peers, pins, secret = (_absolute(file, info) for file in files)
        return replace(rules, peers=peers, pins=pins, picture_secret=secret)

    @classmethod
    def read(cls, file: Path) -> "Operator":
        """Read a file.

        Raises
        ------
        ConfigError
            One line that names the first wrong key, its value and what is allowed.
        """
        try:
            content = read_bytes(file)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror}); name a file") from error
        return _parsed(file.resolve(), content)


@lru_cache(maxsize=64)
def _parsed(file: Path, content: bytes) -> Operator:
    try:
        values = tomllib.loads(content.decode())
        return TypeAdapter(Operator).validate_python(values, context={"folder": file.parent})
    except ValidationError as error:
        sections = {"": Operator.model_fields, "rules": Rules.__dataclass_fields__}
        raise ConfigError(f"{file}: {explain(error, sections)}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is no TOML file ({error})") from error


def _absolute(path: Path | None, info: ValidationInfo) -> Path | None:
    if path is None or not info.context:
        return path
    if "\0" in str(path):
        raise ValueError("no file's name has a NUL character")
    folder: Path = info.context["folder"]
    return folder / path.expanduser()
