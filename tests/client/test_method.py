"""What a site's methods must have, each has."""

import inspect
from typing import get_type_hints

import pytest

from client.method import ClientMethod, client_method
from common.config.run import RunConfig
from common.methods import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_module_is_what_a_site_asks(name):
    module = client_method(RunConfig(method=name))
    for part in ("describe", "answer", "prepare"):
        _, *wanted = inspect.signature(getattr(ClientMethod, part)).parameters.values()
        given = inspect.signature(getattr(module, part)).parameters.values()
        assert [each.annotation for each in given] == [each.annotation for each in wanted]
        assert get_type_hints(getattr(module, part))
