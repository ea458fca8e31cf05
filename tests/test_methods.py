"""The one list of methods names what there is, and nobody else tells methods apart by name."""

import ast
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest

from client.egress.allowlist import allowlist_of
from common.config.run import RunConfig
from common.methods import METHODS
from common.site_folder import first_file

ROOT = Path(__file__).parents[1]
LIST = ROOT / "common" / "methods.py"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_all_that_an_entry_names_is_there(method):
    for name in (method.client, method.server, method.allowlist, method.model, method.audit):
        assert not name or resolve_name(name)
    assert not method.trains or (method.model and method.audit)
    allowed = allowlist_of(method.name)
    assert allowed.QUESTIONS.keys() == allowed.SUMS.keys()
    assert method.description
    assert "\n" not in method.description


def test_a_hospitals_first_file_allows_the_methods_of_the_list():
    assert all(f'"{name}"' in first_file("a", "b:1") for name in METHODS)


def test_a_listed_method_is_a_setting_at_once(monkeypatch):
    """It is known by its name wherever a configuration is read."""
    monkeypatch.setitem(METHODS, "other", replace(METHODS["svm"], name="other"))
    assert RunConfig.read({"method": "other"}).components == 2048


def test_no_other_module_tells_methods_apart_by_name():
    """Not by comparing, nor by tables, nor by how a name begins or ends."""
    files = [f for room in ("client", "common", "server", "simulations") for f in room_files(room)]
    places = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in files
        if file != LIST
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.expr) and tells_apart(node)
    ]
    assert places == []


def room_files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def tells_apart(node: ast.expr) -> bool:
    match node:
        case ast.Compare():
            return "method" in ast.unparse(node) and any(map(is_name, ast.walk(node)))
        case ast.Dict(keys=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            return sum(part is not None and is_name(part) for part in parts) > 1
        case ast.Call(func=ast.Attribute(attr="startswith" | "endswith"), args=parts):
            return any(map(is_name, parts))
    return False


def is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in METHODS
