"""On how many examples a property is tested: few at each commit, many by ``make test-deep``."""

from hypothesis import settings

USUAL, DEEP = "usual", "deep"
"""Profiles of Hypothesis; the second by ``--hypothesis-profile deep``."""

_USUAL_NUMBER, _DEEPER = 100, 40

# A busy machine is no failure.
settings.register_profile(USUAL, deadline=None, max_examples=_USUAL_NUMBER)
settings.register_profile(DEEP, deadline=None, max_examples=_DEEPER * _USUAL_NUMBER)


def examples(number: int, deeper: int = _DEEPER) -> settings:
    """Test a property on so many examples, or in the deep profile ``deeper`` times as many."""
    deep = settings.get_current_profile_name() == DEEP
    return settings(max_examples=number * (deeper if deep else 1))
