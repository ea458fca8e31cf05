"""By what lesions are grouped: what people write, and which group an image is in."""

from dataclasses import replace

import pytest

from common.data.dimensions import DECADES, read_dimensions
from common.data.image import Image
from common.errors import ConfigError

IMAGE = Image(
    "i", "l", "nv", "histo", 40.0, "female", "back", source="rosendahl", skin_tone="milk10k 3"
)


@pytest.mark.parametrize(
    ("text", "name", "group"),
    [
        ("sex", "sex", "female"),
        ("age", "age", "40 to 49"),
        ("age:40,60", "age", "40 to 59"),
        ("source", "site", "rosendahl"),
        ("dx_type", "dx_type", "histo"),
        ("skin_tone", "skin_tone", "milk10k 3"),
        ("age:41,sex*age", "sex*age", "female * under 41"),
    ],
)
def test_an_image_is_in_the_group_that_was_meant(text, name, group):
    dimension = read_dimensions(text)[-1]
    assert dimension.name == name
    others = (replace(IMAGE, age=None), replace(IMAGE, sex="unknown"))
    found = list(dimension.groups_of([IMAGE, *others]))
    assert found[0] == group
    assert found[1:] == ["" if part in name else group for part in ("age", "sex")]


def test_several_are_read_in_their_order_and_ages_go_up():
    sex, age = read_dimensions("sex, age:40,60 ,sex")
    assert (sex.edges, age.edges) == ((40, 60), (40, 60))
    assert read_dimensions("age")[0].edges == DECADES
    assert age.ordered(["60 or more", "under 40", "40 to 59"]) == [
        "under 40",
        "40 to 59",
        "60 or more",
    ]


@pytest.mark.parametrize(
    "text",
    ["", ",", "40", "age:", "age:60,40", "age:1.2.3", "race", "sex*sex", "sex*age*site", "sex,40"],
)
def test_what_means_nothing_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as error:
        read_dimensions(text)
    assert "\n" not in str(error.value)
