"""Near-duplicates across sites: their keyed tokens are compared, nothing is trained."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from common.arrays import Ints
from common.config.duplicates import DuplicatesConfig
from common.config.run import RunConfig
from common.data.picture_tokens import PictureTokens, shared
from common.errors import ConfigError
from common.statistics.sums import Nothing
from server.federation.federation import Federation
from server.federation.question import LossPolicy, Question
from server.survey.documents import Described
from server.survey.shared_pictures import SharedPictures

Pairs = Mapping[tuple[str, str], Ints]


def check(config: RunConfig) -> None:
    """Refuse secure sums.

    Raises
    ------
    ConfigError
        If they are configured.
    """
    if config.secure:
        raise ConfigError(
            "'secure' is true, but method duplicates compares tokens, which no sum can show; "
            "leave it out"
        )


def survey(federation: Federation, config: RunConfig) -> Described:
    """Compare the sites' tokens, and let each site know which of its rows others have.

    Raises
    ------
    QuorumError
        If too few sites are left.
    """
    assert isinstance(config, DuplicatesConfig)  # the list of methods sees to it
    joined = dict(federation.sites)
    question = Question("tokens", PictureTokens.zero())
    each = federation.answers(question, LossPolicy.CONTINUE).by_site
    pairs = {
        (one, other): shared(each[one].tokens, each[other].tokens)
        for one, other in combinations(each, 2)
        if each[one].marks == each[other].marks
    }
    for site in each:
        _let_know(federation, site, pairs, len(each[site].tokens))
    return SharedPictures(
        synthetic=any(info.synthetic for info in joined.values()),
        marks={site: int(answer.marks[0]) for site, answer in each.items()},
        left_out=dict(federation.faults),
        # Of several near-duplicates at one site and one at the other, one is shared.
        pictures={names: _pictures(rows) for names, rows in pairs.items()},
    )


def _pictures(rows: Ints) -> int:
    """Return how many pictures two sites share, given the pairs of their rows (m, 2)."""
    return min(len(np.unique(column)) for column in rows.T)


def _let_know(federation: Federation, site: str, pairs: Pairs, n_rows: int) -> None:
    """Tell a site which of its rows each of the others has."""
    own = {
        names[1 - names.index(site)]: rows[:, names.index(site)]
        for names, rows in pairs.items()
        if site in names
    }
    if not own or site not in federation.sites:
        return
    flags = np.zeros((len(own), n_rows))
    for place, rows in enumerate(own.values()):
        flags[place, rows] = 1
    question = Question(
        "shared", Nothing(), {"rows": flags}, {"others": list(own)}, sites=frozenset({site})
    )
    federation.answers(question, LossPolicy.CONTINUE)
