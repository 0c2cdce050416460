"""`cardswitch interop` and `files take` at a centre, as operators and programs use them; a city and the centre in one installation."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from switch.clearing.interop_desk import key_of
from switch.domain.errors import InputRefused, SwitchError
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import DatabaseKeyStore
from switch.operations.commands.files import app as files
from switch.operations.commands.interop import app as interop
from tests.helpers.cities import CENTRE, Installation, city_id, details, ride
from tests.helpers.depots import answer_file, record_file
from tests.helpers.offline import enter_tac_roots

pytestmark = pytest.mark.server

cli = typer.Typer()
cli.add_typer(files, name="files")
cli.add_typer(interop, name="interop")
Cardswitch = Callable[..., Any]


@pytest.fixture
async def both(
    postgres_url: str, tac_vault: SoftwareVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    """City 1, which is the centre too. Its dates are over at once: the clock of a command is the real one."""
    made = Installation(postgres_url, tac_vault, tmp_path / "clearing", city_id(1))
    await made.build(tariff=None)
    key = tmp_path / "keyfile"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    with psycopg.connect(postgres_url) as connection:
        enter_tac_roots(DatabaseKeyStore(connection), UnlockSecret.key_file(key))
    for name, value in {
        "DATABASE__URL": postgres_url,
        "VAULT__KEY_FILE": str(key),
        "CLEARING__FOLDER": str(made.folder),
        "INSTITUTION__OWN_ID": city_id(1),
        "INTEROP__CENTRE_ID": CENTRE,
        "INTEROP__SERVE": "true",
    }.items():
        monkeypatch.setenv(f"CARDSWITCH_{name}", value)
    monkeypatch.chdir(tmp_path)
    return made


def run(*arguments: str, exits: int = 0) -> Any:
    """A command's JSON, or its error where it fails."""
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    if isinstance(result.exception, SwitchError):
        assert exits == 1
        return str(result.exception)
    assert result.exit_code == exits, result.output
    return json.loads(result.stdout)


def text(*arguments: str) -> str:
    result = CliRunner().invoke(cli, [*arguments])
    assert result.exception is None, result.output
    return result.output


def test_a_city_and_the_centre_in_one_installation_need_no_carrier_between_them(
    both: Installation,
) -> None:
    folder = both.folder.parent
    set_ = ("interop", "tariff", "set", "--from", "2020-01-01", "--rate-ppm", "10000")
    assert run(*set_)["changed"]
    assert not run(*set_)["changed"]
    today = asyncio.run(both.today())
    ours = ride(1, 1, 2, amount_fen=5_000, psam_serial=4_711).pack()
    before = today - timedelta(5)  # long ago for a centre: it counts for today's date, late
    path = record_file("FH", folder, [ours], before, sender=city_id(2), receiver=CENTRE)
    (receipt,) = run("files", "take", str(path))
    assert receipt["results"] == {"11": [1, 5_000]}
    due = run("interop", "due")
    assert [(line["files"], line["records"]) for line in due["to_forward"]] == [(1, 1)]
    assert run("interop", "run")["forwarded"] == []
    with psycopg.connect(both.url, autocommit=True) as connection:  # two days go by
        connection.execute("SET session_replication_role = replica")
        moved = "UPDATE interop_arrival SET clearing_date = clearing_date - 3"
        ((arrived,),) = connection.execute(f"{moved} RETURNING clearing_date".encode()).fetchall()
    ran = run("interop", "run")
    assert ran["forwarded"] == [f"{arrived}"]
    assert [one["unanswered"] for one in ran["decided"]] == [1], "and its time is over too"
    name = f"DF{CENTRE}{city_id(1)}{arrived:%Y%m%d}001"
    assert ran["taken"] == [name]
    rows = asyncio.run(both.rows("SELECT result, credit_owner FROM purse_record"))
    assert rows == [("10", int(city_id(2)))]
    assert "answers we owe" not in text("interop", "due")
    (owed,) = run("interop", "due")["answers_we_owe"]
    assert (owed["name"], owed["lines"], owed["over"]) == (name, 1, True)
    asyncio.run(both.close())
    assert run("interop", "due")["answers_we_owe"] == []
    taken = run("interop", "run")["taken"]
    assert [one[:18] for one in taken] == [f"DT{city_id(1)}{CENTRE}"]
    assert run("interop", "run")["taken"] == []

    way = run("interop", "show", "--record", "331200000001:4711")
    (here,), (there,) = way["as_card_city"], way["as_centre"]
    assert (here["acquiring_city"], here["handed_on_in"], here["result"]) == (city_id(2), name, "10")
    assert (there["card_city"], there["result"], there["answered_in"]) == (city_id(1), "00", None)
    assert there["passed_on_in"] == f"DT{CENTRE}{city_id(2)}{arrived:%Y%m%d}001"
    assert "acquiring city   99993312" in text("interop", "show", "--record", "331200000001:4711")
    assert run("interop", "show", "--record", "331200000001:4712", exits=1)["as_centre"] == []
    assert run("interop", "show", "--file", name)["written"][0]["table"] == "interop_file"
    assert run("interop", "show", "--file", taken[0])["taken"][0]["results"] == {"late": [1, 5_000]}
    _money(both, arrived)
    assert both.audit_faults() == []


def _money(both: Installation, day: date) -> None:
    positions = run("interop", "positions", "--date", f"{day}")
    nets = {line["member"]: line["net_fen"] for line in positions}
    assert nets == {city_id(1): -4_965, city_id(2): 4_960}
    assert positions[0]["state"] in ("DUE", "BLOCKED"), "as the calendar and the hour have it"
    assert positions[0]["centre_fen"] == 5
    assert "net           -49.65" in text("interop", "positions")
    assert run("interop", "funded", city_id(1), f"{day}")["changed"]
    assert "that was noted before" in text("interop", "funded", city_id(1), f"{day}")
    assert "owes nothing" in run("interop", "funded", city_id(2), f"{day}", exits=1)
    assert "no such clearing date" in run("interop", "positions", "--date", "2020-01-01", exits=1)
    early = ("interop", "tariff", "set", "--from", f"{day}", "--rate-ppm", "1")
    assert "settled already: not before" in run(*early, exits=1)
    assert "another tariff" in run(
        "interop", "tariff", "set", "--from", "2020-01-01", "--rate-ppm", "1", exits=1
    )
    assert text("interop", "tariff").startswith("from 2020-01-01: 10000 ppm, at least 0.00, no cap, issuer 7")
    (path,) = both.folder.glob(f"*/NP{CENTRE}{city_id(1)}{day:%Y%m%d}001")
    assert [line[9:17] for line in details(path)] == [city_id(1), city_id(2), CENTRE]
    content = path.read_bytes()
    path.unlink()
    assert run("interop", "run", "--rewrite", f"{day}")["written"] == [path.name]
    assert path.read_bytes() == content


def test_who_is_no_centre_takes_no_files_of_cities_and_runs_nothing(
    both: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_INTEROP__SERVE", "false")
    today = asyncio.run(both.today())
    records = [ride(1, 1, 2).pack()]
    path = record_file("FH", both.folder.parent, records, today, sender=city_id(2), receiver=CENTRE)
    assert "no interop centre" in run("files", "take", str(path), exits=1)
    assert "no interop centre" in run("interop", "run", exits=1)
    assert "to_fund" not in run("interop", "due")
    answer = answer_file(both.folder.parent, [], today, sender=CENTRE, receiver=city_id(1))
    (receipt,) = run("files", "take", str(answer))
    assert receipt["status"] == "00"
    assert CliRunner().invoke(cli, ["interop", "show"]).exit_code == 2
    bad = ["interop", "tariff", "set", "--from", "2020-01-01", "--rate-ppm", "1", "--weights", "1:2"]
    assert CliRunner().invoke(cli, bad).exit_code == 2


@pytest.mark.parametrize(
    "words", ["", "331200000001", "33120000000:1", "331200000001:4294967296", "33120000000x:1"]
)
def test_a_record_is_named_by_psam_and_serial(words: str) -> None:
    with pytest.raises(InputRefused, match="12 digits"):
        key_of(words)
