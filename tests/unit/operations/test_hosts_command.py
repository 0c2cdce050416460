"""`cardswitch hosts` against a real PostgreSQL, as an operator uses it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.ledger.outbox import End, Verdict, claim, record
from switch.operations.commands.hosts import app
from switch.storage.pool import connect
from tests.helpers.hosts import BANK, CARD
from tests.helpers.outbox import PRICE, put_reversals, put_stood_in

pytestmark = pytest.mark.server

Run = Callable[..., Result]


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch hosts ...`; one host is in the settings, with messages, and one is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    link = {"name": "bank", "institution": BANK, "host": "127.0.0.1", "port": 9583}
    monkeypatch.setenv("CARDSWITCH_HOSTS__LINKS", json.dumps([link]))

    async def fill(connection: Any) -> None:
        await put_reversals(connection, 3)
        await put_stood_in(connection, 2, first=10)
        await put_reversals(connection, 1, first=20, host="gone")
        for message in await claim(connection, 0, "bank", limit=2, lease_s=60.0):
            end = End(message, Verdict.REFUSED, "12", tried=True)
            await record(connection, 0, "bank", [end])

    now(postgres_url, fill)

    def run_it(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return run_it


def now(url: str, work: Callable[[Any], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with await connect(url) as connection:
            await work(connection)

    asyncio.run(connected())


def said(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_list_has_hosts_of_the_settings_and_those_that_are_owed_something(run: Run) -> None:
    bank, gone = said(run("list", "--json"))
    assert (bank["host"], bank["address"], bank["open"], bank["refused"]) == ("bank", "127.0.0.1:9583", 3, 2)
    assert (bank["stood_in_outstanding"], bank["stood_in_outstanding_fen"]) == (2, 2 * PRICE)
    assert bank["oldest_s"] >= 59
    assert (gone["host"], gone["address"], gone["open"]) == ("gone", None, 1)
    assert "gone  not in the settings  open 1" in run("list").stdout


def test_the_outbox_is_shown_oldest_first_with_the_card_masked(run: Run) -> None:
    found = said(run("outbox", "--json"))
    assert [(one["outbox_no"], one["state"]) for one in found] == [
        (1, "refused"),
        (2, "refused"),
        (3, "open"),
        (10, "open"),
        (11, "open"),
        (20, "open"),
    ]
    assert (found[0]["message"], found[0]["last_end"], found[0]["tries"]) == ("REVERSAL_ADVICE", "12", 1)
    assert found[3]["message"] == "ADVICE"
    assert {one["card"] for one in found} == {"622848*********9006"}
    for text in (run("outbox").stdout, run("outbox", "--json").stdout):
        assert CARD.reveal() not in text
    assert [one["outbox_no"] for one in said(run("outbox", "--refused", "--json"))] == [1, 2]
    assert [one["outbox_no"] for one in said(run("outbox", "--host", "gone", "--json"))] == [20]


def test_a_refused_message_is_retried_or_settled_and_nothing_else_is(run: Run, postgres_url: str) -> None:
    assert run("retry", "bank", "1", "--actor", "li wei").stdout == "message 1 to bank is open again\n"
    assert run("settle", "bank", "2", "--reason", "paid by hand").exit_code == 0
    assert said(run("outbox", "--refused", "--json")) == []
    for words in (("retry", "bank", "3"), ("settle", "bank", "99", "--reason", "x"), ("retry", "gone", "1")):
        with pytest.raises(InputRefused):
            run(*words)
    assert run("settle", "bank", "1").exit_code == 2  # no reason
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT actor, change->>'move' FROM registry_change ORDER BY change_no")
        assert [move for _, move in rows] == ["retry", "settle"]


def test_what_was_approved_in_a_host_s_place_is_told_by_day(run: Run, postgres_url: str) -> None:
    async def confirm(connection: Any) -> None:
        for message in await claim(connection, 0, "bank", limit=100, lease_s=60.0):
            end = End(message, Verdict.CONFIRMED, "00", tried=True)
            await record(connection, 0, "bank", [end] if message.outbox_no == 10 else [])

    now(postgres_url, confirm)
    [day] = said(run("stand-in", "--json"))
    assert day == {
        "host": "bank",
        "business_date": "2026-11-25",
        "approved": 2,
        "approved_fen": 2 * PRICE,
        "advised": 1,
        "advised_fen": PRICE,
        "refused": 0,
        "refused_fen": 0,
        "outstanding": 1,
        "outstanding_fen": PRICE,
    }
    assert "outstanding 1 (12.34)" in run("stand-in", "--host", "bank").stdout
    assert run("stand-in", "--host", "gone").stdout == ""
