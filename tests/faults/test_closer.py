"""The service closes days by itself, in a process of its own that may be killed."""

import json
import os
import signal
import urllib.request
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.ledger.days import cut_over, ensure_days, open_day
from switch.storage.pool import connect
from tests.helpers.switch_process import SwitchProcess, process_gone, until
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

WITHIN_S = 600.0  # whoever closes lets everybody else go first


@pytest.fixture(scope="module")
def switch(town: Town) -> SwitchProcess:
    town.serve()  # has the database, and closes nothing
    return beside(town)


def beside(town: Town) -> SwitchProcess:
    """Another service on the same database and the same clearing folder, which closes days."""
    return town.serve_beside(clearing__auto_close="true", clearing__folder=town.data_dir / "clearing")


async def end_the_open_day(town: Town) -> date:
    async with await connect(town.database_url) as connection:
        await ensure_days(connection)
        row = await open_day(connection)
        assert row is not None
        await cut_over(connection, row.day, lead_s=0.05)
    return row.day


def one(connection: psycopg.Connection[Any], query: str, *values: object) -> Any:
    row = connection.execute(query, values).fetchone()
    return row[0] if row else None


def closers_of(parent: int) -> list[int]:
    """Processes of that parent that close a day."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent_of = int((folder / "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent_of == parent and b"switch.operations.closer" in words:
            found.append(int(folder.name))
    return found


async def test_a_day_that_has_ended_is_closed_by_the_service_even_when_its_closer_is_killed(
    town: Town, switch: SwitchProcess
) -> None:
    day = await end_the_open_day(town)
    with (
        psycopg.connect(town.database_url) as blocking,
        psycopg.connect(town.database_url, autocommit=True) as watching,
    ):
        blocking.execute("LOCK TABLE clearing_file IN EXCLUSIVE MODE")  # so that it stands still in a step
        running = "SELECT state FROM clearing_step WHERE business_date = %s AND step = 'files'"
        until(lambda: one(watching, running, day) == "RUNNING", WITHIN_S, "the step `files`")
        (closer,) = closers_of(switch.pid)
        assert f"closing {day}: files" in switch.get("/readyz?verbose")[1]
        assert switch.metric("cardswitch_close_day") == int(f"{day:%Y%m%d}")
        os.kill(closer, signal.SIGKILL)
        until(
            lambda: switch.metric("cardswitch_close_failures_total", step="files") == 1,
            WITHIN_S,
            "the failure",
        )
        assert "ended with status -9; tried again in 5 s" in switch.get("/readyz?verbose")[1]
        assert switch.ready()  # a day that is not closed is no reason to send terminals away
        blocking.rollback()
        closed = "SELECT state = 2 FROM business_day WHERE business_date = %s"
        until(lambda: bool(one(watching, closed, day)), WITHIN_S, "the close")
        tries = "SELECT tries FROM clearing_step WHERE business_date = %s AND step = 'files'"
        assert one(watching, tries, day) == 2
    until(lambda: "[+] close ok" in switch.get("/readyz?verbose")[1], WITHIN_S, "the end of the close")
    assert switch.metric("cardswitch_close_day") == switch.metric("cardswitch_close_days_overdue") == 0
    assert "[+] calendar ok" in switch.get("/readyz?verbose")[1]
    status = json.loads(town.run("close", "--status", "--date", day.isoformat(), "--json"))
    assert status["state"] == "closed"
    assert {step["actor"].split(",")[0] for step in status["steps"]} == {"the service"}
    town.run("files", "--date", day.isoformat())
    assert json.loads(town.run("report", "float", "--json"))["day"] == day.isoformat()
    token = json.loads(town.run("api", "token", "add", "a tester", "--role", "auditor", "--json"))["token"]
    assert switch.get("/api/v1/days")[0] == 401
    asked = urllib.request.Request(
        f"http://{switch.http}/api/v1/days/{day}/float", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert json.loads(answer.read())["day"] == day.isoformat()
    assert token not in switch.log.read_text()


async def test_of_two_services_one_closes_and_when_it_stops_its_closer_ends_and_the_other_goes_on(
    town: Town, switch: SwitchProcess
) -> None:
    other = beside(town)
    with (
        psycopg.connect(town.database_url) as blocking,
        psycopg.connect(town.database_url, autocommit=True) as watching,
    ):
        blocking.execute("LOCK TABLE clearing_file IN EXCLUSIVE MODE")
        day = await end_the_open_day(town)
        running = "SELECT actor FROM clearing_step WHERE business_date = %s AND step = 'files'"
        until(lambda: one(watching, running, day) is not None, WITHIN_S, "the step `files`")
        closer = int(
            one(watching, running, day).rpartition(" ")[2]
        )  # both may have begun one; this one works
        at_it, waits = (switch, other) if closer in closers_of(switch.pid) else (other, switch)
        until(
            lambda: "a close is running: close by the service" in waits.get("/readyz?verbose")[1],
            WITHIN_S,
            "the other to see it",
        )
        at_it.terminate()
        assert at_it.wait() == 0
        assert process_gone(closer)
        blocking.rollback()
        closed = "SELECT state = 2 FROM business_day WHERE business_date = %s"
        until(lambda: bool(one(watching, closed, day)), WITHIN_S, "the close")
        actors = "SELECT count(DISTINCT actor) FROM clearing_step WHERE business_date = %s"
        assert one(watching, actors, day) == 2
