"""What a site's methods must have, each has."""

import importlib
import inspect

import pytest

from client.app import METHODS
from client.method import Method


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_module_is_what_a_site_asks(name):
    module = importlib.import_module(METHODS[name])
    for function in ("describe", "answer"):
        _site, *wanted = inspect.signature(getattr(Method, function)).parameters.values()
        given = inspect.signature(getattr(module, function)).parameters.values()
        assert [each.annotation for each in given] == [each.annotation for each in wanted]
