"""Pictures are compared across sites only where operators want it, and by noise for all others."""

import hmac
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.app import app
from client.methods.duplicates import ELSEWHERE_FILE
from client.open_site import SITE
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.duplicates import hash_of
from common.data.picture_tokens import DRAWS, tokens
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import ConfigError, Reason
from common.wire.messages import unpack_arrays, unpack_values
from server.federation.federation import Federation
from server.methods.duplicates import check, survey
from server.run.folder import RunFolder
from server.survey.shared_pictures import as_markdown, as_text
from simulations.data.partition import write_site
from simulations.runtimes.experiment import simulate
from simulations.runtimes.in_process import InProcessGrid
from tests.client.egress.test_guard import Node, everything, secrets_of
from tests.documents import records_of
from tests.sites import hospital_file

ROWS = 1_024
COPIES = 4

Hospital = Callable[..., Node]
Answered = tuple[dict[str, Any], list[Node]]


def copied(data: bytes, place: int) -> bytes:
    """Return a picture encoded again, in one of four ways."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    size = [(width, height), (width // 2, height // 2), (2 * width, 2 * height), (224, 224)][place]
    image.resize(size).save(buffer := io.BytesIO(), "JPEG", quality=[40, 85, 90, 80][place])
    return buffer.getvalue()


@pytest.fixture
def sites(synthetic_folder: Path, tmp_path: Path) -> Path:
    """Write two sites; the second has copies of four pictures of the first, under other names."""
    folder, dataset = tmp_path / "sites", Dataset.open(synthetic_folder)
    first = dataset.by_lesion.index < len(dataset.by_lesion.sizes) // 2
    for name, part in (("north", first), ("south", ~first)):
        write_site(dataset.select(part), folder / name, link=False)
    table = folder / "south" / METADATA_FILE
    row = table.read_text().splitlines()[1].split(",")
    images = next((folder / "south").rglob("*.jpg")).parent
    for place in range(COPIES):
        data = dataset.read(dataset.select(first).images[place].image_id)
        (images / f"ISIC_999{place}.jpg").write_bytes(copied(data, place))
        added = ",".join([f"HAM_999{place}", f"ISIC_999{place}", *row[2:]])
        table.write_text(f"{table.read_text()}{added}\n")
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (file := tmp_path / "secret").write_text("5a" * 32 + "\n")
    return file


def run_of(sites: Path, out: str, **settings: Any) -> RunConfig:
    folders = {"sites": sites, "cache": sites.parent / "cache", "out": sites.parent / out}
    return RunConfig.read({**folders, "method": "duplicates", "most_pictures": ROWS, **settings})


@pytest.fixture
def hospital(sites: Path, secret: Path, tmp_path: Path) -> Hospital:
    """Make the first hospital."""

    def make(settings: dict[str, Any] | None = None, **rules: Any) -> Node:
        named = {"picture_secret": str(secret), **rules}
        kept = {name: value for name, value in named.items() if value is not None}
        return Node(run_of(sites, "run", **(settings or {})), tmp_path / "hospital", **kept)

    return make


def compare(sites: Path, secrets: Sequence[Path | None]) -> dict[str, Any]:
    """Run a comparison over the hospitals, each with a secret of its own or none."""
    config = run_of(sites, "compared")
    files = [
        hospital_file(
            data,
            sites.parent / data.name,
            config.cache,
            **({"picture_secret": str(secret)} if secret else {}),
        )
        for data, secret in zip(sorted(sites.iterdir()), secrets, strict=True)
    ]
    grid = InProcessGrid(app, [{SITE: str(file)} for file in files], config.flat())
    with RunFolder.opened(config) as folder:
        federation = Federation(grid, config, folder)
        federation.join()
        return survey(federation, config).values()


def test_copies_at_two_hospitals_are_found_and_each_names_its_own(sites, secret, caplog):
    with caplog.at_level(logging.WARNING):
        values = compare(sites, [secret, secret])
    assert values["shared"] == [{"sites": ["north", "south"], "pictures": COPIES}]
    assert "north and south share 4 pictures" in as_text(values)
    assert "| north | south | 4" in as_markdown(values)
    south = (sites.parent / "south" / "state" / ELSEWHERE_FILE).read_text()
    assert south == "".join(f"ISIC_999{i}\tnorth\n" for i in range(COPIES))
    north = (sites.parent / "north" / "state" / ELSEWHERE_FILE).read_text().splitlines()
    own = {image.image_id for image in Dataset.open(sites / "north").images}
    assert {line.split("\t")[0] for line in north} <= own
    assert len(north) == COPIES
    assert "south: ISIC_9990 is also at north: agree on the site" in caplog.text
    assert not any(name in str(values) for name in own)


def test_a_simulation_needs_no_secret(sites):
    values = simulate(run_of(sites, "simulated"))
    assert [each["pictures"] for each in values["shared"]] == [COPIES]


def test_a_site_that_does_not_allow_it_sends_nothing_and_the_others_hear_of_no_picture(
    sites, secret
):
    values = compare(sites, [secret, None])
    assert values["sites"] == ["north"]
    assert values["shared"] == []
    [(_, why)] = values["left_out"].items()
    assert why == f"(south) refused: {Reason.METHOD}"


def test_another_secret_finds_nothing_and_is_named(sites, secret, tmp_path):
    (other := tmp_path / "other").write_text("5b" * 32)
    values = compare(sites, [secret, other])
    assert values["shared"] == []
    assert values["other_secret"] == ["south"]
    assert "south has another secret" in as_text(values)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"picture_secret": None}, Reason.METHOD),
        ({"methods": ["svm", "statistics"]}, Reason.METHOD),
        ({"least_count": 2}, Reason.METHOD),
        ({"least_sites": 3}, Reason.SECURE),
        ({"picture_secret": "nowhere"}, Reason.CONFIGURATION),
    ],
)
def test_an_operator_decides(hospital, rules, reason):
    node = hospital(**rules)
    flags = {"rows": np.zeros((1, ROWS))}
    for question in (("join",), ("tokens",), ("shared", flags)):
        values = {"others": ["south"]} if question[0] == "shared" else {}
        assert node.refusal(*question, **values) is reason


@pytest.mark.parametrize("text", ["", "5a" * 31, "a passphrase", "5a" * 31 + "zz"])
def test_a_secret_that_can_be_guessed_is_none(hospital, secret, text):
    node = hospital()
    secret.write_text(text)
    assert node.refusal("join") is Reason.CONFIGURATION
    secret.write_text("5a" * 32)
    assert "refused" not in unpack_values(node.ask("join"))


def test_without_the_secret_a_guessed_picture_cannot_be_tested(hospital, secret):
    """The coordinator has the very file, the program and the run's number, but no secret."""
    node = hospital()
    sent = unpack_arrays(node.ask("tokens"))["tokens"]
    image = Dataset.open(node.data).images[0].image_id
    guessed = hash_of(Dataset.open(node.data).read(image))[None]
    public = b"pictures of run 1"
    for key in (b"", b"\0" * 32, b"5a" * 32, public, hmac.digest(b"", public, "sha256")):
        assert not np.isin(sent, tokens(guessed, key)).any()
    known = hmac.digest(b"\x5a" * 32, public, "sha256")  # what only the operators have
    assert np.isin(tokens(guessed, known), sent).all()
    assert len(np.unique(sent)) == ROWS * DRAWS  # and the site's pictures are not told from padding
    # In another run nothing is as it was.
    node.run = 2
    assert not np.isin(sent, unpack_arrays(node.ask("tokens"))["tokens"]).any()


def test_what_leaves_is_of_one_length_and_holds_no_name(hospital):
    node = hospital()
    joined, answered = node.ask("join"), node.ask("tokens")
    said = unpack_values(joined)
    assert (said["images"], said["lesions"]) == ("", "")
    assert unpack_arrays(answered)["tokens"].shape == (ROWS, DRAWS)
    flags = np.ones((1, ROWS))
    told = node.ask("shared", {"rows": flags}, others=["south"])
    assert not unpack_arrays(told)
    assert not unpack_values(told)
    # Told that all rows are elsewhere, padding too, the site names its own images once.
    named = (node.operator.state / ELSEWHERE_FILE).read_text().splitlines()
    assert len(named) == len(Dataset.open(node.data))
    for reply in (joined, answered, told):
        assert not [name for name in secrets_of(node) if name in everything(reply)]


def test_questions_of_another_form_are_refused(hospital):
    node = hospital()
    for arrays, others in (
        ({"rows": np.ones((2, ROWS))}, ["south"]),
        ({"rows": np.ones((1, ROWS - 1))}, ["south"]),
        ({"rows": np.full((1, ROWS), 2.0)}, ["south"]),
        ({"rows": np.ones((0, ROWS))}, []),
        ({}, ["south"]),
    ):
        assert node.refusal("shared", arrays, others=others) is Reason.FORM


def test_secure_sums_cannot_show_it(sites):
    with pytest.raises(ConfigError, match="compares tokens, which no sum can show"):
        check(run_of(sites, "run", secure=True))


def test_every_record_is_in_the_table_of_the_document(hospital):
    listed = records_of("What leaves in a run of duplicates")
    node = hospital()
    assert listed == {*unpack_values(node.ask("join")), *unpack_arrays(node.ask("tokens"))}
