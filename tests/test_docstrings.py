"""Public docstrings say what a signature cannot: shapes, and nothing that the signature says.

The dialect is NumPy's sections with underlined headings, and ``name : text`` for a parameter or an
attribute. When it was chosen, four in five entries of this repository were written so; the others
were ``name : type`` with the text below. Every signature is typed, so a type is not repeated.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("client", "common", "server", "simulations")
SECTIONS = {"Parameters", "Attributes", "Returns", "Raises", "References", "Notes"}

ARRAYS = {"NDArray", "ndarray", "ArrayLike", "Tensor"}
"""Names of array types; so are all names that modules give to types made of them."""

UNTYPED = {
    "common.json_types.JsonObject": "JSON that was read; its reader indexes and checks it",
    "common.storage.verified.Array": "an array that was read; its type is in the file",
    "client.egress.questions.Type": "an annotated type, for which Python has no type",
    "simulations.cli.json_output.write_figures": "dataclasses as they become JSON",
}
"""What is made of ``Any`` and may be in a public signature, and why; and one function."""

_SIZE = r"(?:\.{3}|[\w.]+(?: ?[-+*/] ?(?:[\w.]+|\([^()]*\)))*)"
SHAPE = re.compile(
    rf"\(\)|\({_SIZE},\)|\({_SIZE}(?:, {_SIZE})+\)|\(\.{{3}}\)|\bshapes?\b|\bas in `"
)
"""A shape such as ``(n, d)`` or ``()``; or words that say where the shapes are."""

TYPES = {"array", "bool", "callable", "dict", "float", "int", "list", "mapping", "ndarray", "str"}


class Module(NamedTuple):
    """A module's source: its name, and what its text means."""

    name: str
    tree: ast.Module


class Documented(NamedTuple):
    """A public function or class with a docstring."""

    module: Module
    name: str
    node: ast.FunctionDef | ast.ClassDef

    @property
    def sections(self) -> dict[str, str]:
        """The docstring's sections by their headings; what comes before them under ""."""
        lines = (ast.get_docstring(self.node) or "").splitlines()
        heading, parts = "", {"": [""]}
        for line, below in zip(lines, [*lines[1:], ""], strict=True):
            if re.fullmatch("-{3,}", below):
                heading = line
                parts[heading] = []
            elif not re.fullmatch("-{3,}", line):
                parts[heading].append(line)
        return {heading: "\n".join(lines).strip() for heading, lines in parts.items()}

    def entries(self, *headings: str) -> Iterator[tuple[list[str], str]]:
        """Yield the names and the text of each entry of these sections."""
        for heading in headings:
            for entry in re.split(r"\n+(?=\S)", self.sections.get(heading, "")):
                if entry:
                    names, _, text = entry.partition(" : ")
                    yield names.replace("*", "").split(", "), text

    @property
    def parameters(self) -> dict[str, ast.expr | None]:
        """What a caller passes, by name, with its type: a class's fields where it has any."""
        made = self.node
        if isinstance(made, ast.ClassDef):
            fields = {f.target.id: f.annotation for f in made.body if _is_field(f)}
            inits = [f for f in made.body if getattr(f, "name", "") == "__init__"]
            if not inits:
                return fields
            made = inits[0]
        a = made.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        return {arg.arg: arg.annotation for arg in every if arg.arg not in ("self", "cls")}

    @property
    def attributes(self) -> set[str]:
        """Names that objects of a class have."""
        own = {n.target.id for n in self.node.body if _is_field(n)}
        own |= {t.id for n in self.node.body if isinstance(n, ast.Assign) for t in n.targets}
        own |= {n.name for n in self.node.body if isinstance(n, ast.FunctionDef)}
        return own | {
            n.attr for n in ast.walk(self.node) if isinstance(n, ast.Attribute) and _is_set(n)
        }

    def __str__(self) -> str:
        return f"{self.module.name}.{self.name}"


def _is_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_")


def _is_set(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name)


def _modules() -> Iterator[Module]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            yield Module(name.removesuffix(".__init__"), ast.parse(file.read_text()))


def _public(module: Module) -> Iterator[Documented]:
    def walk(body: list[ast.stmt], outer: str) -> Iterator[Documented]:
        for node in body:
            if not getattr(node, "name", "_").startswith("_"):
                yield Documented(module, outer + node.name, node)
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{outer}{node.name}.")

    if not any(part.startswith("_") for part in module.name.split(".")):
        yield from walk(module.tree.body, "")


MODULES = list(_modules())
PUBLIC = [documented for module in MODULES for documented in _public(module)]


def _words(kind: ast.AST | None) -> set[str]:
    """Return the names in a type; those of a function's type are its own affair."""
    match kind:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
            return {name}
        case ast.Subscript(value=ast.Name(id="Callable" | "Literal")) | None:
            return set()
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _words(first)
    return set().union(*map(_words, ast.iter_child_nodes(kind)))


def _names(first: set[str]) -> dict[str, dict[str, str]]:
    """Return, for each module, the types made of ``first`` by name, and where each is made."""
    names = {module.name: {name: name for name in first} for module in MODULES}
    size = -1
    while size != (size := sum(map(len, names.values()))):
        for module in MODULES:
            known = names[module.name]
            for node in module.tree.body:
                match node:
                    case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=same)):
                        if same in known:
                            made = f"{module.name}.{name}"
                            known[name] = made if same in first else known[same]
                    case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() as kind):
                        if _words(kind) & known.keys():
                            known[name] = f"{module.name}.{name}"
                    case ast.ImportFrom(module=source, names=imported):
                        there = names.get(source, {})
                        known |= {n.name: there[n.name] for n in imported if n.name in there}
    return names


def _shaped(text: str, name: str) -> bool:
    """Tell whether a sentence has both a name and a shape."""
    sentences = re.split(r"(?<=\.)\s|\n\n", text)
    return any(re.search(rf"\b{name}\b", each) and SHAPE.search(each) for each in sentences)


def _without_shape(each: Documented, array_types: dict[str, str]) -> list[str]:
    """Return the arrays of a signature of which the docstring says no shape."""
    prose = each.sections[""]
    arrays = [name for name, kind in each.parameters.items() if _words(kind) & array_types.keys()]
    entries = each.entries("Parameters", "Attributes")
    listed = {name for names, text in entries if SHAPE.search(text) for name in names}
    missing = [n for n in arrays if n not in listed and not _shaped(prose, n)]
    if isinstance(each.node, ast.FunctionDef) and _words(each.node.returns) & array_types.keys():
        said = SHAPE.findall(each.sections.get("Returns", "") or prose)
        in_prose = "Returns" not in each.sections and not set(arrays) <= listed
        missing += ["what it returns"] if len(said) < 1 + in_prose else []
    return missing


def _wrong_entries(each: Documented) -> Iterator[str]:
    """Yield the entries with a name that the signature lacks, a repeated type or no text."""
    known = {"Parameters": set(each.parameters), "Attributes": set(each.parameters)}
    if isinstance(each.node, ast.ClassDef):
        known["Attributes"] |= each.attributes
    for heading, allowed in known.items():
        for names, text in each.entries(heading):
            kinds = set().union(*(_words(each.parameters.get(name)) for name in names)) | TYPES
            if not set(names) <= allowed or not text or re.split(r"\W", text)[0] in kinds:
                yield f"{each}: {', '.join(names)} : {text}"


def _raised(each: Documented) -> list[str]:
    """Return the names in the Raises section."""
    lines = each.sections.get("Raises", "").splitlines()
    return [name for line in lines if line[:1].strip() for name in line.split(", ")]


def _untyped(each: Documented, names: dict[str, str]) -> set[str]:
    """Return what is made of ``Any`` in a signature; its own name, where it is ``Any`` itself."""
    kinds = [*each.parameters.values(), getattr(each.node, "returns", None)]
    words = {word for kind in kinds if kind for word in re.findall(r"\w+", ast.unparse(kind))}
    return {str(each) if names[word] == "Any" else names[word] for word in words & names.keys()}


def test_every_array_in_a_public_signature_has_its_shape_in_the_docstring():
    names = _names(ARRAYS)
    missing = {str(each): _without_shape(each, names[each.module.name]) for each in PUBLIC}
    assert {name: arrays for name, arrays in missing.items() if arrays} == {}


def test_sections_are_those_of_numpy():
    odd = re.compile(r"^(Args|Arguments|Returns|Raises|Yields):$|^:(param|return|raise)", re.M)
    for each in PUBLIC:
        assert set(each.sections) - {""} <= SECTIONS, each
        assert not odd.search(ast.get_docstring(each.node) or ""), each
        assert "\n " not in each.sections.get("Returns", ""), (each, "is a type, then a text")


def test_an_entry_is_a_name_of_the_signature_and_a_text_that_repeats_no_type():
    assert [wrong for each in PUBLIC for wrong in _wrong_entries(each)] == []


def test_raises_sections_name_exceptions():
    known = {name for m in MODULES for n in m.tree.body if (name := getattr(n, "name", ""))}
    known |= set(dir(builtins))
    for each in PUBLIC:
        for name in _raised(each):
            assert name.endswith("Error"), (each, name)
            assert name in known, (each, name)


def test_no_public_signature_has_any_where_a_type_can_be_said():
    names = _names({"Any"})
    functions = (each for each in PUBLIC if isinstance(each.node, ast.FunctionDef))
    untyped = set().union(*(_untyped(each, names[each.module.name]) for each in functions))
    assert untyped == UNTYPED.keys()


def _sample(signature: str, docstring: str) -> Documented:
    tree = ast.parse(f'def sample({signature}:\n    """{docstring}"""\n')
    return Documented(Module("sample", tree), "sample", tree.body[0])


SECTION = "Do it.\n\n    Parameters\n    ----------\n    "


@pytest.mark.parametrize(
    ("signature", "docstring", "missing"),
    [
        ("X: NDArray) -> None", "Do it to ``X`` (n, d).", []),
        ("X: NDArray) -> None", "Do it to ``X``. The rest is (n, d).", ["X"]),
        ("X: NDArray) -> None", f"{SECTION}X : (n, d) records.", []),
        ("X: dict[str, NDArray]) -> None", f"{SECTION}X : what goes with it.", ["X"]),
        ("X: dict[str, NDArray]) -> None", f"{SECTION}X : by name, as in `SUMS`.", []),
        ("x: float) -> NDArray", "Return that.", ["what it returns"]),
        ("x: float) -> NDArray", "Return that, ().", []),
        ("X: NDArray) -> NDArray", "Return that of ``X`` (n,).", ["what it returns"]),
        ("X: NDArray) -> NDArray", "Return that of ``X`` (n,) in the same shape.", []),
        ("f: Callable[[NDArray], int]) -> None", "Do it.", []),
    ],
)
def test_a_shape_that_is_missing_is_seen(signature, docstring, missing):
    assert _without_shape(_sample(signature, docstring), dict.fromkeys(ARRAYS, "")) == missing


@pytest.mark.parametrize(
    "entry", ["y : of another name.", "x : float\n        The text.", "x : int, the text.", "x"]
)
def test_an_entry_that_is_stale_or_a_type_is_seen(entry):
    assert [*_wrong_entries(_sample("x: float) -> None", SECTION + entry))]
    assert not [*_wrong_entries(_sample("x: float) -> None", f"{SECTION}x : the text."))]
