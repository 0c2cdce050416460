"""`cardswitch files take` and `cardswitch trips`, as an operator and as a program use them."""

import asyncio
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from psycopg import AsyncConnection
from typer.testing import CliRunner

from switch.domain.errors import SwitchError
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from switch.ledger.days import open_day
from switch.operations.commands.files import app as files
from switch.operations.commands.trips import app as trips
from switch.purse.trips import fold_trips
from switch.storage.pool import connect
from terminal_sim.host.day_file import write_file
from terminal_sim.records import Phase
from tests.helpers.depots import depot_file
from tests.helpers.offline import Ride, build, enter_tac_roots, pan_of

pytestmark = pytest.mark.server

cli = typer.Typer()
cli.add_typer(files, name="files")
cli.add_typer(trips, name="trips")


@pytest.fixture
async def day(
    postgres_url: str, pg: AsyncConnection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> date:
    """The open day of a town with a vault; the commands find both by the settings."""
    await build(postgres_url)
    key = tmp_path / "keyfile"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    with psycopg.connect(postgres_url) as connection:
        enter_tac_roots(DatabaseKeyStore(connection), UnlockSecret.key_file(key))
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_VAULT__KEY_FILE", str(key))
    monkeypatch.chdir(tmp_path)
    row = await open_day(pg)
    assert row is not None
    return row.day


async def fold(url: str) -> None:
    async with await connect(url) as connection:
        await fold_trips(connection)


def test_an_operator_takes_files_and_sees_trips(day: date, postgres_url: str, tmp_path: Path) -> None:
    at = {"line": "0003", "station": "0101", "entry_station": "0101"}
    records = [
        Ride(card=1, atc=0, amount_fen=0, phase=Phase.ENTRY, **at).pack(),
        Ride(card=1, atc=1, amount_fen=250, full_fare_fen=400, phase=Phase.EXIT, **at).pack(),
        Ride(card=2, tac=b"wrng").pack(),
    ]
    good, broken = depot_file(tmp_path, records, day), depot_file(tmp_path, records, day, sequence=3)
    broken.write_bytes(broken.read_bytes().replace(b"D00000002", b"D0000000x", 1))
    runner = CliRunner()
    done = runner.invoke(cli, ["files", "take", str(good)])
    assert done.exit_code == 0, done.output
    assert f"{good.name}: 3 lines, 4.50, taken on {day}" in done.output
    assert [row.split() for row in done.output.splitlines()[-2:]] == [
        ["01", "1", "2.00"],
        ["10", "2", "2.50"],
    ]
    both = runner.invoke(cli, ["files", "take", str(good), str(broken), "--json"])
    assert both.exit_code == 1
    again, refused = json.loads(both.stdout)
    assert (again["status"], again["repeated"], again["results"]["10"]) == ("00", True, [2, 250])
    assert (refused["status"], refused["reason"]) == ("02", "line 3, column 2: line_no: digits only")
    partner = write_file(tmp_path, "01020000", "99990000", day, [])
    (nobody,) = json.loads(runner.invoke(cli, ["files", "take", str(partner), "--json"]).stdout)
    assert (nobody["status"], "reconcile.partners" in nobody["reason"]) == ("04", True)
    with pytest.raises(SwitchError, match="name must be type 2"):
        runner.invoke(cli, ["files", "take", str(tmp_path / "keyfile")], catch_exceptions=False)
    with pytest.raises(SwitchError, match="are not taken"):
        runner.invoke(cli, ["files", "take", f"MR{good.name[2:]}"], catch_exceptions=False)
    with pytest.raises(SwitchError, match=r"interop\.centre_id is not set"):
        runner.invoke(cli, ["files", "take", f"DT{good.name[2:]}"], catch_exceptions=False)
    with pytest.raises(SwitchError, match="No such file"):
        runner.invoke(cli, ["files", "take", f"{good.name[:-1]}9"], catch_exceptions=False)

    asyncio.run(fold(postgres_url))
    shown = json.loads(runner.invoke(cli, ["trips", "day", "--json"]).stdout)
    (line,) = [line for line in shown["lines"] if line["line"] == "0003"]
    assert (line["complete"], line["paid_fen"], line["full_fen"], line["open"]) == (1, 250, 400, 0)
    assert "0003" in runner.invoke(cli, ["trips", "day"]).stdout
    text = runner.invoke(cli, ["trips", "card", pan_of(1)]).stdout
    assert "1 trips" in text
    assert "COMPLETE" in text
    assert pan_of(1) not in text
    document = json.loads(runner.invoke(cli, ["trips", "card", pan_of(1), "--json"]).stdout)
    assert [trip["state"] for trip in document["trips"]] == ["COMPLETE"]
