"""Every method's module offers what the coordinator calls."""

import inspect
from typing import get_type_hints

import pytest

from common.config.run import RunConfig
from common.methods import METHODS
from server.method import ServerMethod, server_method

SIDE = ("check", "train", "model_name", "training_facts")


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_module_has_the_coordinators_side(name):
    module = server_method(RunConfig(method=name))
    for part in SIDE:
        wanted, found = getattr(ServerMethod, part), getattr(module, part)
        assert [*inspect.signature(found).parameters] == [*inspect.signature(wanted).parameters][1:]
        assert get_type_hints(found) == get_type_hints(wanted)
