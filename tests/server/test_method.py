"""Every method's module offers what the coordinator calls."""

import importlib
import inspect
from typing import get_type_hints

import pytest

from server.app import METHODS
from server.method import ServerMethod


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_module_has_the_coordinators_side(name):
    module = importlib.import_module(METHODS[name])
    assert [*inspect.signature(module.train).parameters] == ["federation", "config", "folder"]
    assert get_type_hints(module.train) == get_type_hints(ServerMethod.train)
