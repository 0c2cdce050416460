"""`cardswitch sim pos`: what it takes, and that keys and card numbers stay where they are."""

import json
import re
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from switch.domain.errors import InputRefused
from terminal_sim.commands import app
from terminal_sim.device import _fen, _trace_by_the_clock

KEY = "954EEBCB98C8AB90C8E93564C213D30A"
PAN = "3133500100000001239"
runner = CliRunner()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def options(tmp_path: Path, key: str = KEY) -> list[str]:
    file = tmp_path / "tmk"
    file.write_text(key + "\n")
    where = ["--host", "127.0.0.1", "--port", str(closed_port())]
    return [*where, "--terminal", "33500001", "--merchant", "993350054110001", "--key-file", str(file)]


@pytest.mark.parametrize("step", ["buy", "purchase", "purchase:1.2", "purchase:-1.00", "refund:", "echo:1"])
def test_a_step_that_is_none_is_wrong_use(tmp_path: Path, step: str) -> None:
    assert runner.invoke(app, ["pos", step, *options(tmp_path)]).exit_code == 2


def test_a_switch_that_is_not_there_is_said_and_fails(tmp_path: Path) -> None:
    ran = runner.invoke(app, ["pos", "sign-on", *options(tmp_path)])
    assert ran.exit_code == 1
    assert "sign-on: no answer (the switch cannot be reached)" in ran.output
    assert KEY not in ran.output
    assert "C0710B33" in ran.output  # the check value of the key, as docs/joining.md has it


def test_a_tmk_is_derived_from_a_tmmk(tmp_path: Path) -> None:
    tmmk = "A4D7E661662E98AEC9FA21FC69B456EF"
    ran = runner.invoke(app, ["pos", "sign-on", "--tmmk", *options(tmp_path, tmmk)])
    assert "C0710B33" in ran.output
    assert tmmk not in ran.output


def test_json_is_one_document_a_line(tmp_path: Path) -> None:
    ran = runner.invoke(app, ["pos", "sign-on", "--json", *options(tmp_path)])
    assert json.loads(ran.stdout)["fault"] == "the switch cannot be reached"


@pytest.mark.parametrize("key", ["", "00", "Z" * 32, KEY * 2])
def test_a_key_that_is_none_is_refused_without_being_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputRefused) as caught:
        runner.invoke(app, ["pos", "sign-on", *options(tmp_path, key)], catch_exceptions=False)
    assert str(caught.value) == "TMK: must be 32 hex digits"


def test_a_card_number_that_is_none_is_refused_without_being_shown(tmp_path: Path) -> None:
    command = ["pos", "purchase:1.00", "--pan", "12x4567890123", *options(tmp_path)]
    with pytest.raises(InputRefused) as caught:
        runner.invoke(app, command, catch_exceptions=False)
    assert "12x4" not in str(caught.value)


def test_no_option_takes_a_key_or_a_pin() -> None:
    command = typer.main.get_command(app)
    pos = command.commands["pos"]  # type: ignore[attr-defined]  # typer's group
    names = {name for parameter in pos.params for name in parameter.opts}
    assert not {name for name in names if re.fullmatch(r"--(pin|tmk|key|secret).*", name)} - {"--key-file"}


def test_two_runs_in_one_batch_do_not_mean_the_same_request() -> None:
    assert 1 <= _trace_by_the_clock() <= 864_000


@pytest.mark.parametrize(("text", "fen"), [("12.34", 1234), ("1", 100), ("0.05", 5), ("", 0)])
def test_amounts_are_whole_fen(text: str, fen: int) -> None:
    assert _fen(text) == fen
