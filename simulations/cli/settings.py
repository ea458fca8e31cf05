"""The settings of a run as text: for a user, and as Flower's defaults in ``pyproject.toml``."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from common.config.base import CommonConfig
from common.config.run import complete_class, dependent, flat, settings_of
from common.methods import METHODS, Method

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

_DEFAULTS = re.compile(r"(?ms)^\[tool\.flwr\.app\.config\]\n.*?(?=^\n|^\[|\Z)")
_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


def settings_text(method: Method | None) -> str:
    """List settings by family, with defaults, ranges and meanings; of one method, or all."""
    methods = [method] if method else list(METHODS.values())
    families = dict.fromkeys(family for each in methods for family in each.families)
    shared: list[type[BaseModel]] = [CommonConfig]
    blocks = ["\n".join(f"method={each.name:17} {each.description}" for each in methods)]
    blocks += [_block(family, methods) for family in [*shared, *families]]
    return "\n\n".join(blocks)


FLOWER_FOLDERS = {"sites": "data/sites", "out": "runs/flower"}
"""What ``flwr run .`` trains on in a clone, from ``make demo``, and where its run lies."""


def flower_defaults() -> dict[str, str | int | float]:
    """Return the defaults of all methods, empty where what a run gets depends on others."""
    first, *others = (complete_class()(method=name) for name in METHODS)
    fields = complete_class().model_fields
    chosen = {key for key, field in fields.items() if field.get_default() != getattr(first, key)}
    chosen |= {key for other in others for key, value in other if value != getattr(first, key)}
    chosen |= dependent()
    defaults = {key: "" if key in chosen - {"method"} else flat(value) for key, value in first}
    return {**defaults, **FLOWER_FOLDERS}


def write_flower_defaults(pyproject: Path = PYPROJECT) -> None:
    """Write the defaults into a ``pyproject.toml``: Flower refuses keys that are absent there."""
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in flower_defaults().items())
    table = "[tool.flwr.app.config]\n" + "".join(lines)
    text = pyproject.read_text(encoding="utf-8")
    pyproject.write_text(_DEFAULTS.sub(lambda _: table, text, count=1), encoding="utf-8")


def _block(family: type[BaseModel], methods: list[Method]) -> str:
    users = [each.name for each in METHODS.values() if family in each.families]
    title = str(family.__doc__).splitlines()[0].removesuffix(".")
    lines = [f"{title} ({', '.join(users)}):" if users else f"{title}:"]
    for name, field in family.model_fields.items():
        if _own(family, name) and _used(name, methods):
            lines.append(
                f"  {f'{name}={_default(name, methods)}':34} {_meaning(name, field, methods)}"
            )
    return "\n".join(lines)


def _own(family: type[BaseModel], name: str) -> bool:
    """Tell whether a family has a setting by itself, not from another one."""
    return all(name not in getattr(base, "model_fields", {}) for base in family.__bases__)


def _used(name: str, methods: list[Method]) -> bool:
    return any(name in settings_of(method) for method in methods)


def _default(name: str, methods: list[Method]) -> str:
    if name == "method" and len(methods) > 1:
        return str(complete_class().model_fields[name].default)
    values = (flat(getattr(complete_class()(method=each.name), name)) for each in methods)
    return " or ".join(dict.fromkeys(map(str, values)))


def _meaning(name: str, field: FieldInfo, methods: list[Method]) -> str:
    allowed = _range(name, field, methods)
    return f"{field.description}{f' [{allowed}]' if allowed else ''}"


def _range(name: str, field: FieldInfo, methods: list[Method]) -> str:
    if get_origin(field.annotation) is Literal:
        values, users = get_args(field.annotation), [m for m in methods if name in m.settings]
        offered = {value for each in users for value in each.choices.get(name, values)}
        return ", ".join(value for value in values if value in offered)
    if get_origin(field.annotation) is tuple:
        rules = get_args(get_args(field.annotation)[0])[1:]  # of each item; none of plain texts
        bounds = _bounds(bound for rule in rules for bound in getattr(rule, "metadata", ()))
        return f"each {bounds}" if bounds else ""
    return _bounds(field.metadata)


def _bounds(constraints: Iterable[object]) -> str:
    words = (
        f"{word} {getattr(item, name):g}"
        for item in constraints
        for name, word in _BOUNDS.items()
        if hasattr(item, name)
    )
    return " ".join(words)


if __name__ == "__main__":
    write_flower_defaults()
