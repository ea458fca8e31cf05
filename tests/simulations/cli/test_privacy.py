"""The privacy commands as a user types them."""

import re

import pytest
from typer.testing import CliRunner

from client.privacy.ledger import FILE, SEAL_FOLDER, Ledger, Release
from common.privacy.accounting import SampledGaussian, epsilon, largest_delta
from simulations.cli.privacy import app
from tests.commands import is_one_error

runner = CliRunner()


def _plan(*arguments: object) -> tuple[float, float, str]:
    """Return noise multiplier, epsilon and the rest of what is shown."""
    result = runner.invoke(app, ["plan", *map(str, arguments)])
    assert result.exit_code == 0, result.exception
    shown = re.match(r"noise multiplier (\S+)\nepsilon (\S+) (.*)", result.output, re.DOTALL)
    assert shown
    return float(shown[1]), float(shown[2]), shown[3]


def test_the_noise_for_an_epsilon_and_back():
    training = ("--units", 6000, "--batch", 256, "--steps", 300)
    noise, spent, rest = _plan("--epsilon", 3, *training)
    assert rest == "at delta 1e-05: sampling rate 0.0426667, 300 steps\n"
    assert spent <= 3
    assert spent == pytest.approx(epsilon([SampledGaussian(noise, 256 / 6000, 300)], 1e-5), 1e-3)
    assert _plan("--noise", noise, *training) == (noise, spent, rest)


def test_delta_falls_with_the_number_of_units():
    _, _, rest = _plan("--noise", 5, "--rate", 1, "--steps", 1, "--units", 10**6)
    assert rest.startswith(f"at delta {largest_delta(10**6):g}:")


def test_honest_sites_share_the_noise():
    training = ("--epsilon", 3, "--rate", 1, "--delta", 1e-5, "--steps", 2)
    noise, _, rest = _plan(*training, "--sites", 4, "--honest", 3)
    last = rest.splitlines()[-1]
    assert last.startswith("each site's share, if 3 of 4 are honest and remain: ")
    share = float(last.rpartition(" ")[2])
    assert noise <= share * 3**0.5 < 1.001 * noise


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--rate", 1], "give either --epsilon or --noise"),
        (["--rate", 1, "--epsilon", 1, "--noise", 1], "give either --epsilon or --noise"),
        (["--noise", 1], "give either --rate, or --units and --batch"),
        (["--noise", 1, "--batch", 4], "--batch is 4 of --units None"),
        (["--noise", 1, "--batch", 4, "--units", 3], "--batch is 4 of --units 3"),
        (["--noise", 1, "--rate", 1], "give --delta, or --units"),
        (["--noise", 1, "--rate", 2, "--delta", 1e-5], "the sampling rate is 2.0"),
        (["--noise", 0, "--rate", 1, "--delta", 1e-5], "the noise multiplier is 0;"),
        (["--epsilon", 0, "--rate", 1, "--delta", 1e-5], "epsilon is 0.0"),
        (["--noise", 1, "--rate", 1, "--delta", 0.01, "--units", 100], "choose 1e-05 or less"),
        (["--noise", 1, "--rate", 1, "--delta", 1e-5, "--sites", 3], "--honest is None of --sites"),
        (
            ["--noise", 1, "--rate", 1, "--delta", 1e-5, "--sites", 3, "--honest", 4],
            "--honest is 4 of --sites 3",
        ),
    ],
)
def test_a_mistake_is_one_line(fedderm, arguments, reason):
    refused = fedderm("privacy", "plan", "--steps", 5, *arguments)
    assert is_one_error(*refused)
    assert reason in refused[2]


def test_a_ledger_is_verified_and_shown(fedderm, tmp_path):
    state = tmp_path / "state"
    ledger = Ledger.open(tmp_path, "ab" * 32, "lesion_id", 2.0, 1e-5, state)
    ledger.settle(ledger.reserve(Release(SampledGaussian(5.0, 1.0), "class counts"))[0])
    command = ("privacy", "ledger", tmp_path, "--state", state)
    code, out, err = fedderm(*command)
    assert (code, err) == (0, "")
    assert out.splitlines() == list(ledger.account().lines())
    code, out, _ = fedderm(*command, "--limit", 3)
    assert code == 0
    assert "limit changed from 2 to 3" in out
    assert out.endswith("is spent of 3; 2.274 is left\n")
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("5.0", "9.0"))
    refused = fedderm(*command)
    assert is_one_error(*refused)
    assert "what was spent is unknown" in refused[2]


def test_a_simulated_sites_ledger_is_shown_without_more_ado(fedderm, tmp_path):
    ledger = Ledger.open(tmp_path, "ab" * 32, "lesion_id", 2.0, 1e-5, tmp_path / SEAL_FOLDER)
    ledger.reserve(Release(SampledGaussian(5.0, 1.0), "class counts"))
    code, out, _ = fedderm("privacy", "ledger", tmp_path)
    assert (code, out.splitlines()) == (0, list(ledger.account().lines()))


def test_a_folder_without_a_ledger_is_one_line(fedderm, tmp_path):
    refused = fedderm("privacy", "ledger", tmp_path)
    assert is_one_error(*refused)
    assert "is no privacy ledger; name the folder of one" in refused[2]
