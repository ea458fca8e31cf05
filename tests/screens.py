"""The screens that pages are looked at on."""

import pytest

PHONE, DESK = (360, 740), (1280, 900)
"""Width and height in pixels."""

SIZES = pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
