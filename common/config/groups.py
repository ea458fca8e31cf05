"""The kind of setting that names groups of lesions."""

from typing import Annotated

from pydantic import BeforeValidator

from common.config.fields import listed, read_by
from common.data.counted_groups import CountedGroups


def groups_of(names: tuple[str, ...]) -> CountedGroups:
    """Return the groups of lesions that sites count apart, by names that were checked."""
    return CountedGroups.read(",".join(names))


GroupNames = Annotated[tuple[str, ...], BeforeValidator(listed), read_by(groups_of)]
