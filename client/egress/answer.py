"""What a site would answer, before the guard has checked it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.wire.messages import Arrays, Value


@dataclass(frozen=True)
class Answer:
    """An answer; the guard checks each of its fields.

    Attributes
    ----------
    arrays, values : what leaves; the arrays by name, of the shapes that the allow-list declares.
    hidden : the sums, by name and in their own shapes, that ``arrays`` holds under masks.
    """

    arrays: Arrays = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    hidden: Arrays = field(default_factory=dict)
