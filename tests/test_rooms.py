"""Every module is where packages, Flower's app bundle and the pinned hash look for it."""

import io
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
SHIPPED = ("client", "common", "server")
INTERFACE = "fedderm"


@pytest.fixture(scope="module")
def deep_app(tmp_path_factory) -> Path:
    """Write an app of the project's settings, with modules two folders down in every room."""
    app = tmp_path_factory.mktemp("app")
    (app / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for room in (*SHIPPED, "simulations", "tests"):
        folder = app / room / "one" / "two"
        folder.mkdir(parents=True)
        for package in (app / room, folder.parent, folder):
            (package / "__init__.py").touch()
        (folder / "deep.py").touch()
    (app / "common" / "one" / "two" / "deep.json").touch()
    for name in ("server", "client"):
        (app / name / "app.py").write_text("app = None\n")
    (app / f"{INTERFACE}.py").touch()
    return app


def test_flowers_bundle_has_the_modules_of_every_depth_that_a_site_or_coordinator_runs(deep_app):
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(deep_app))) as bundle:
        names = bundle.namelist()
        modules = {name for name in names if name.endswith(".py")}
    deep = {
        str(p.relative_to(deep_app)) for room in SHIPPED for p in (deep_app / room).rglob("*.py")
    }
    assert modules == deep
    assert "common/one/two/deep.json" in names  # what a site reads, as public components


def test_the_interface_and_packages_of_every_depth_are_installed(deep_app):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["py-modules"] == [INTERFACE] == [file.stem for file in ROOT.glob("*.py")]
    found = set(find_packages(str(deep_app), **settings["packages"]["find"]))
    rooms = (*SHIPPED, "simulations")
    assert found == {f"{room}{inner}" for room in rooms for inner in ("", ".one", ".one.two")}


def test_every_folder_of_modules_is_a_package():
    """Another one would be missing where the project is installed, and nowhere else."""
    for room in (*SHIPPED, "simulations"):
        for module in (ROOT / room).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module
