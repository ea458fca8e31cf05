"""Every method's module offers what the coordinator calls."""

import inspect
from typing import get_type_hints

import pytest

from common.config.run import RunConfig
from common.methods import METHODS
from server.method import ServerMethod, SurveyMethod, server_method

SIDES = {
    ServerMethod: ("check", "train", "model_name", "training_facts"),
    SurveyMethod: ("check", "survey"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_module_has_the_coordinators_side(name):
    module = server_method(RunConfig(method=name))
    kind = ServerMethod if METHODS[name].model else SurveyMethod
    for part in SIDES[kind]:
        wanted, found = getattr(kind, part), getattr(module, part)
        assert [*inspect.signature(found).parameters] == [*inspect.signature(wanted).parameters][1:]
        assert get_type_hints(found) == get_type_hints(wanted)
