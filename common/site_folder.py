"""The folder of a hospital, as the coordinator hands it out and the hospital's program reads it."""

import json

from common.methods import METHODS

FILE = "site.toml"
"""Name of the operator's file."""

AUTHORITY, NODE_KEY = "ca.crt", "node"
"""Files beside it: the authority's certificate, and the key of this site's node."""


def first_file(name: str, superlink: str) -> str:
    """Return the operator's file before the operator changes it.

    Parameters
    ----------
    superlink : host and port of the coordinator.
    """
    return _TEMPLATE.format(name=name, superlink=superlink, methods=json.dumps(list(METHODS)))


_TEMPLATE = """\
# The file of this hospital's operator. It is read anew for every question: what is changed here
# holds from the next one on. Relative names are in this folder.
name = "{name}"
superlink = "{superlink}"
data = "data"               # folder with the table and the images
port = 9094                 # of this machine alone, for Flower's own processes
cache = "cache"             # can be computed again
state = "state"             # must not be lost: privacy ledger, identity, egress log
seals = "~/.local/state/fedderm"   # tell when an older copy of these is put back

[rules]                     # what may leave, whatever the coordinator asks; 0: no such rule
methods = {methods}
epsilon = 0                 # what all private runs together may spend; 0: there are none
delta = 1e-5                # largest chance that it does not hold
expected_lesions = 10000    # that this site may come to have; 1 / delta must be more
unit = "lesion_id"          # column that names what private runs protect
test_fraction = 0.2         # of the lesions, for testing, where the table has no splits
test_counts = false         # whether exact counts on test lesions leave in private runs too
least_sites = 3             # in secure sums only, over so many sites or more
least_lesions = 20          # of each class that is there, for sums that are not secure
least_count = 5             # smaller counts leave in secure sums only
min_active = 20             # lesions that must be active in each of an SVM's problems
rounds = 10000              # an SVM's, over all runs
questions = 50000           # about the images, over all runs
rounds_a_day = 5000         # answers in 24 hours
megabytes_a_day = 20000     # sent in 24 hours
peers = "peers"             # public keys of the sites that may be in a sum, one a line
"""
