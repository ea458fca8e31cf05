"""A coordinator that breaks the protocol gets refusals or noise, never a site's share."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from scipy import stats

from client.app import app
from client.egress.activity_gate import Gate, Gated
from client.egress.log_files import FILE as EGRESS
from client.open_site import SITE
from client.operator.site_rules import Operator
from client.secure.identity import Identity, pinned_keys
from client.site import Site
from common.config.run import RunConfig
from common.errors import ConfigError, DataError, Reason, RefusalError
from common.wire.messages import pack, stamp, unpack_arrays, unpack_values
from common.wire.secure_sums import KEY, PEERS, UNMASK, SumRound, combine, statement
from simulations.runtimes.in_process import InProcessGrid
from tests.secure import QUESTION, RUN, Attacker, Pair, names
from tests.sites import hospital_file, make_quick_sites, with_changes

SIZE = 4
OTHER = pack({}, {"question": "another"})


@pytest.fixture
def attacker(tmp_path: Path) -> Attacker:
    """Begin a run of five sites, of which four must be in every sum."""
    return Attacker(tmp_path, 5)


def share(name: str, round: int = 0) -> Pair:
    rng = np.random.default_rng([int(name[-2:]), round])
    return Pair(rng.standard_normal(SIZE), rng.integers(-9, 9, SIZE))


def another(name: str) -> Pair:
    return share(name, 1)


def test_keys_cannot_be_swapped_after_they_were_agreed_on(attacker):
    keys = {**attacker.keys, "site_01": attacker.keys["site_02"]}
    with pytest.raises(RefusalError, match="were agreed on; these are others"):
        attacker.sites["site_00"].agree(keys)
    with pytest.raises(RefusalError, match="another one under this site's name"):
        attacker.sites["site_01"].agree(keys)
    # Who comes later is in no sum.
    more = {**attacker.keys, "site_99": attacker.keys["site_01"]}
    assert attacker.sites["site_00"].agree(more)["members"] == attacker.names


def test_a_round_is_answered_once_and_none_before_it(attacker):
    attacker.ask(7, attacker.names, share)
    for number in (7, 6, 0, -1):
        with pytest.raises(RefusalError, match=f"round {number} is not after round 7"):
            attacker.ask(number, attacker.names, another, OTHER)


def test_a_sum_is_opened_once(attacker):
    shares = attacker.ask(1, attacker.names, share)
    attacker.open(1, shares)
    with pytest.raises(RefusalError, match="round 1 was opened before"):
        attacker.open(1, shares)


def test_what_was_not_opened_stays_closed_when_others_are_asked_again(attacker):
    """Else the sums with and without a site that seems to be gone would give its share."""
    first = attacker.ask(1, attacker.names, share)
    second = attacker.ask(2, attacker.names[1:], share)
    attacker.open(2, second)
    for name in attacker.names[1:]:
        with pytest.raises(RefusalError, match="round 1 is not the last, 2; it stays closed"):
            attacker.sites[name].unmask(1, [each.envelopes[0] for each in first.values()])


def test_nor_is_a_sum_formed_again_over_fewer_sites_when_it_was_opened(attacker):
    attacker.open(1, attacker.ask(1, attacker.names, share))
    with pytest.raises(RefusalError, match="was summed over other sites before"):
        attacker.ask(2, attacker.names[1:], another)  # the same question
    attacker.ask(2, attacker.names[1:], another, OTHER)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (["site_00"] * 5, "each once"),
        ([*names(5), "site_04"], "each once"),
        (names(5)[::-1], "each once"),
        ([*names(4), "site_99"], "site_99 was not in the last sum"),
        (names(3), "3 sites are in the sum, of 5 that began the run; this site wants 4"),
        (names(2), "this site wants 4"),
        (["site_00"], "this site wants 4"),
        ([], "each once"),
    ],
)
def test_lists_that_overlap_or_are_too_short_are_refused(attacker, members, reason):
    with pytest.raises(RefusalError, match=reason):
        attacker.sites["site_00"].mask(SumRound(RUN, 1, members), share("site_00"))


def test_a_site_that_was_left_out_of_an_opened_sum_is_not_taken_back(attacker):
    attacker.ask(1, attacker.names[:4], share)
    attacker.open(2, attacker.ask(2, attacker.names, share))  # nothing was told without it
    attacker.open(3, attacker.ask(3, attacker.names[:4], another, OTHER))
    with pytest.raises(RefusalError, match="site_04 was not in the last sum"):
        attacker.ask(4, attacker.names, share)


def test_the_operator_can_want_more_sites_than_the_protocol(tmp_path):
    attacker = Attacker(tmp_path, 5, least=5)
    with pytest.raises(RefusalError, match=r"4 sites are in the sum, .* wants 5"):
        attacker.ask(1, attacker.names[:4], share)
    with pytest.raises(RefusalError, match="4 sites share keys, this site wants 5"):
        Attacker(tmp_path / "fewer", 4, least=5)


@pytest.mark.parametrize("differ", ["question", "members"])
def test_sites_that_were_asked_differently_give_noise_and_open_nothing(attacker, differ):
    """A network of one site only, or another list of sites, does not show its share."""
    members, question = (names(5), OTHER) if differ == "question" else (names(4), QUESTION)
    odd = attacker.sites["site_00"].mask(SumRound(RUN, 1, members), share("site_00"), question)
    asked = SumRound(RUN, 1, names(5))
    others = [attacker.sites[name].mask(asked, share(name)) for name in names(5)[1:]]
    with pytest.raises(RefusalError, match="an envelope is not site_00's in this round"):
        attacker.sites["site_01"].unmask(1, [each.envelopes[1] for each in (odd, *others)])


def test_envelopes_of_another_round_or_reader_do_not_open(attacker):
    old = attacker.ask(1, attacker.names, share)
    attacker.open(1, old)
    new = attacker.ask(2, attacker.names, another, OTHER)
    with pytest.raises(RefusalError, match="is not site_00's in this round"):
        attacker.open(2, {**new, "site_00": old["site_00"]})
    with pytest.raises(RefusalError, match="is not site_00's in this round"):
        attacker.sites["site_01"].unmask(2, [each.envelopes[0] for each in new.values()])
    with pytest.raises(RefusalError, match="4 envelopes for 5 sites"):
        attacker.sites["site_01"].unmask(2, [each.envelopes[1] for each in new.values()][:4])


def test_what_a_site_sends_looks_like_noise(tmp_path):
    """Uniform bytes, whatever the share; the same share looks different every time."""
    attacker = Attacker(tmp_path, 3)
    zero = Pair.zero(20_000)
    first = attacker.ask(1, attacker.names, lambda name: zero)["site_00"].vector
    question = pack({}, {"question": "again"})
    second = attacker.ask(2, attacker.names, lambda name: zero, question)["site_00"].vector
    for vector in (first, second, first - second):
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_all_but_one_that_collude_with_the_coordinator_learn_only_the_sum_of_the_rest(attacker):
    """Below the threshold, their parts do not make a seed, and its mask stays on."""
    shares = attacker.ask(1, attacker.names, share)
    parts = {}
    for place, name in enumerate(attacker.names[:3]):
        keys = attacker.sites[name].unmask(1, [s.envelopes[place] for s in shares.values()])
        parts[place] = keys["parts"][4]
    real = attacker.sites["site_03"].unmask(1, [s.envelopes[3] for s in shares.values()])
    assert combine(parts) != combine({**parts, 3: real["parts"][4]})


def test_counts_over_all_sites_open_the_gate_unseen(tmp_path):
    """Each site alone has too few; together they have enough, and nobody is told who has how."""
    gate = Gate(size=2, fits=1, min_active=9)
    few = Attacker(tmp_path / "few", 3)
    shares = few.ask(1, few.names, lambda name: Gated(share(name), gate, (2, 0)))
    with pytest.raises(RefusalError, match="fewer than 9 lesions, or of one fold fewer than 3"):
        few.open(1, shares)
    enough = Attacker(tmp_path / "enough", 3)
    shares = enough.ask(1, enough.names, lambda name: Gated(share(name), gate, (3, 1)))
    assert all(len(keys["parts"]) == 3 for keys in enough.open(1, shares).values())
    fold = Attacker(tmp_path / "fold", 3)
    shares = fold.ask(
        1, fold.names, lambda name: Gated(share(name), gate, (9, int(name < "site_02")))
    )
    with pytest.raises(RefusalError, match="of one fold fewer than 3, are active"):
        fold.open(1, shares)


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_an_older_copy_of_a_runs_log_opens_nothing_again(tmp_path, attacker, kept):
    """As a backup that is put back: else a sum is opened twice, or a mask hides two shares."""
    attacker.open(1, attacker.ask(1, attacker.names, share))
    [log] = (tmp_path / "site_00").glob("*.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4  # a key, the others' keys, a share, its opening
    attacker.ask(2, attacker.names, another, OTHER)
    log.write_bytes(b"".join(lines[:kept]))
    site = attacker.sites["site_00"]
    for again in (
        lambda: site.mask(SumRound(RUN, 2, attacker.names), share("site_00"), QUESTION),
        lambda: site.unmask(1, [b""] * len(attacker.names)),
        site.key,
    ):
        with pytest.raises(DataError, match="an older copy was put back"):
            again()


class Coordinator:
    """Speaks to the real app at simulated sites."""

    def __init__(self, config: RunConfig, hospitals: Path | None = None, **rules) -> None:
        assert config.sites is not None
        folders = sorted(config.sites.iterdir())
        nodes = [{"partition-id": i} for i in range(len(folders))]
        if hospitals is not None:
            files = [hospital_file(f, hospitals / f.name, config.cache, **rules) for f in folders]
            nodes = [{SITE: str(file)} for file in files]
        self.names = [folder.name for folder in folders]
        self._grid = InProcessGrid(app, nodes, config.flat())

    def ask(self, place: int, question: str, asked: SumRound | None = None, **values) -> dict:
        content = stamp(pack({}, {"question": question, **values}))
        if asked:
            asked.put_into(content)
        [reply] = self._grid.send_and_receive([Message(content, place + 1, "query")])
        told = unpack_values(reply.content)
        if "refused" in told:
            raise RefusalError(Reason.FAILED, str(told["refused"]))
        return {**told, **unpack_arrays(reply.content)}

    def keys(self, run: str = RUN) -> dict:
        told = [self.ask(place, KEY, run=run) for place in range(len(self.names))]
        return {
            "run": run,
            "names": self.names,
            "keys": [each["key"] for each in told],
            "signatures": [each["signature"] for each in told],
        }


@pytest.fixture
def config(synthetic_folder, tmp_path) -> RunConfig:
    """Configure secure sums over three sites."""
    base = make_quick_sites(synthetic_folder, tmp_path, 3)
    return with_changes(base, {"out": tmp_path / "run", "secure": True})


def test_keys_must_be_signed_by_pinned_identities(config):
    coordinator = Coordinator(config)
    good = coordinator.keys()
    own = b"\7" * 32  # a key whose secret the coordinator would know
    with pytest.raises(RefusalError, match="said to be site_01's is not signed by the identity"):
        coordinator.ask(0, PEERS, **{**good, "keys": [good["keys"][0], own, good["keys"][2]]})
    swapped = [good["signatures"][i] for i in (0, 2, 1)]
    with pytest.raises(RefusalError, match="is not signed by the identity"):
        coordinator.ask(0, PEERS, **{**good, "signatures": swapped})
    with pytest.raises(RefusalError, match="no identity of stranger is pinned"):
        coordinator.ask(0, PEERS, **{**good, "names": ["site_00", "site_01", "stranger"]})
    with pytest.raises(RefusalError, match="a name occurs twice"):
        coordinator.ask(0, PEERS, **{**good, "names": ["site_00", "site_01", "site_01"]})
    identity = Identity(config.sites / "site_01")  # of another run, rightly signed
    replayed = [*good["signatures"]]
    replayed[1] = identity.sign(statement("ab", "site_01", good["keys"][1]))
    with pytest.raises(RefusalError, match="is not signed by the identity"):
        coordinator.ask(0, PEERS, **{**good, "signatures": replayed})
    assert coordinator.ask(0, PEERS, **good)["members"] == coordinator.names


def test_no_plain_sum_leaves_a_site_in_a_run_of_secure_ones(config):
    coordinator = Coordinator(config)
    with pytest.raises(RefusalError, match="this question asks for a plain one"):
        coordinator.ask(0, "moments")
    with pytest.raises(RefusalError, match="no key of this run"):
        coordinator.ask(0, "moments", SumRound(RUN, 1, coordinator.names))
    good = coordinator.keys()
    told = coordinator.ask(0, PEERS, **good)
    assert told == {"round": 0, "members": coordinator.names, "threshold": 3}
    masked = coordinator.ask(0, "moments", SumRound(RUN, 1, coordinator.names))
    assert masked.keys() == {"masked", "envelopes", "seal"}
    with pytest.raises(RefusalError, match="value 'run' is"):
        coordinator.ask(0, UNMASK, run="../x", round=1, envelopes=[])


def test_a_hospital_can_demand_secure_sums_and_pins_what_its_operator_names(
    config, tmp_path, caplog
):
    plain, hospitals = config.model_copy(update={"secure": False}), tmp_path / "hospitals"
    with pytest.raises(RefusalError, match="in secure sums over enough sites only; set secure"):
        Coordinator(plain, hospitals, least_sites=3).ask(0, "join")
    coordinator = Coordinator(config, hospitals, least_sites=3)
    good = coordinator.keys()
    with pytest.raises(RefusalError, match="configuration cannot be used, which its log explains"):
        coordinator.ask(0, PEERS, **good)
    assert "as 'peers' in the rules" in caplog.text
    peers = tmp_path / "peers"
    coordinator = Coordinator(config, hospitals, least_sites=3, peers=str(peers))
    good = coordinator.keys()
    owned = [hospitals / folder.name / "state" for folder in sorted(config.sites.iterdir())]
    lines = [f"{f.parent.name}\t{Identity(f).public().hex()}" for f in owned]
    peers.write_text("\n".join(lines[:2]))
    with pytest.raises(RefusalError, match=Reason.KEYS):
        coordinator.ask(0, PEERS, **good)
    assert "no identity of site_02 is pinned at this site" in caplog.text
    peers.write_text("\n".join(lines))
    assert coordinator.ask(0, PEERS, **good)["threshold"] == 3
    coordinator.ask(0, "moments", SumRound(RUN, 1, coordinator.names))
    last = (owned[0] / EGRESS).read_text().splitlines()[-1]
    hidden = {each["record"]: each["hidden"] for each in json.loads(last)["records"]}
    sums = {"class_weight": True, "class_sum": True, "gram": True}
    assert hidden == {"masked": False, **sums}
    more = Coordinator(config, hospitals, least_sites=4, peers=str(peers))
    good = more.keys("0b" * 8)
    with pytest.raises(RefusalError, match=Reason.MEMBERS):
        more.ask(0, PEERS, **good)
    assert "3 sites share keys, this site wants 4" in caplog.text


def test_a_file_of_peers_that_cannot_be_read_is_named(config, tmp_path):
    (tmp_path / "peers").write_text("site_00 notahexkey\n")
    folder = config.sites / "site_00"
    file = hospital_file(folder, tmp_path / "hospital", peers=str(tmp_path / "peers"))
    site = Site(folder, config, Operator.read(file))
    with pytest.raises(ConfigError, match="peers is no file of names and keys"):
        pinned_keys(site)
