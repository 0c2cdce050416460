"""A day's files go to a partner with a real sshd, his receipts come back, and what he leaves for us is taken and answered."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from click.testing import Result
from psycopg import AsyncConnection
from typer.testing import CliRunner

from switch.clearing.close import day_folder
from switch.clearing.resends import resend
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from switch.operations.commands.deliver import app as deliveries
from switch.operations.commands.deliver import deliver
from switch.operations.delivering import Deliverer
from switch.settings import Settings
from switch.storage.pool import connect
from tests.helpers.depots import depot_file
from tests.helpers.offline import Ride, enter_tac_roots
from tests.helpers.partners import (
    OTHER,
    Closed,
    alarms,
    check_whole,
    closed_city,
    forget,
    partner_settings,
    settings_of,
    states,
    take_away,
)
from tests.helpers.sshd import Sshd
from tests.helpers.switch_process import SwitchProcess, until

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
cli = typer.Typer()
cli.command("deliver")(deliver)
cli.add_typer(deliveries, name="deliveries")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd") / "partner") as server:
        yield server


@pytest.fixture(scope="module")
def city(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    with closed_city(server_url, "delivered", tmp_path_factory.mktemp("city") / "clearing") as city:
        yield city


@pytest.fixture
async def pg(city: Closed, running: Sshd) -> AsyncIterator[Pg]:
    """A connection to the city, which has forgotten what was delivered."""
    async with await connect(city.url) as connection:
        await forget(connection, running)
        yield connection


@pytest.fixture
def server(running: Sshd, pg: Pg) -> Sshd:
    """The partner, with empty folders."""
    return running


@pytest.fixture
def day(city: Closed) -> date:
    return city.day


@pytest.fixture
def settings(server: Sshd, city: Closed) -> Settings:
    return settings_of(city.folder, city.url, partner_settings(server, city.day))


async def visit(settings: Settings) -> Any:
    visit = await attempt(settings)
    assert visit.fault == ""
    return visit


async def attempt(settings: Settings) -> Any:
    (visit,) = await Deliverer(settings.database.url.get_secret_value(), settings).once()
    return visit


async def command(*arguments: str) -> Result:
    """A command as an operator gives it; it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_files_arrive_whole_in_their_order_once_and_receipts_are_applied_once(
    pg: Pg, settings: Settings, server: Sshd, day: date
) -> None:
    folder = day_folder(settings.clearing_folder, day)
    first = await visit(settings)
    kinds = [name[:2] for name in first.sent]
    assert kinds == ["NP", "CM", "MR"]
    assert check_whole(server) == set(first.sent)
    for name in names_in(server.inbox):
        assert (server.inbox / name).read_bytes() == (folder / name).read_bytes()
    positions, details, merchant = first.sent
    (server.inbox / f"{positions}.ack").write_bytes((server.inbox / f"{positions}.ok").read_bytes())
    (server.inbox / f"{details}.ack").write_text("")
    (server.inbox / f"{merchant}.rej").write_text(
        "02 card 3133500100000001239 \x1b[31m is not known\n" + "x" * 9000
    )
    second = await visit(settings)
    assert (second.sent, second.receipts) == ((), 3)
    assert await states(pg) == [
        (positions, "ACKNOWLEDGED"),
        (details, "ACKNOWLEDGED"),
        (merchant, "REJECTED"),
    ]
    assert await alarms(pg) == [("REJECTED", merchant)]
    reason = await (await pg.execute("SELECT reason FROM delivery WHERE state = 'REJECTED'")).fetchone()
    assert reason is not None
    assert reason[0].startswith("02 card 313350*********1239  [31m is not known x")
    assert len(reason[0]) <= 200
    assert not [name for name in names_in(server.inbox) if name.endswith((".ack", ".rej"))]
    assert (await visit(settings)).receipts == 0


async def test_receipts_that_cannot_be_are_alarms_and_change_nothing(
    pg: Pg, settings: Settings, server: Sshd
) -> None:
    positions, details, merchant = (await visit(settings)).sent
    other = positions[:2] + "9" * 24 + "001"
    receipts = {
        f"{positions}.ack": "F" * 64,  # of another file
        f"{details}.ack": "",
        f"{other[:18]}20240315001.ack": "",
        f"{merchant}.rej": "",
    }
    for name, content in receipts.items():
        (server.inbox / name).write_text(content)
    await visit(settings)
    for name, content, at in (
        (f"{details}.ack", "", 5),
        (f"{details}.rej", "no", 5),
        (f"{merchant}.ack", "", 6),
    ):
        (server.inbox / name).write_text(content)
        os.utime(server.inbox / name, (1_700_000_000 + at, 1_700_000_000 + at))
    (server.inbox / "notes.ack").write_text("nobody's")
    await visit(settings)
    assert sorted(await alarms(pg)) == sorted(
        [
            ("ACK_DIGEST", positions),
            ("ACK_UNKNOWN", f"{other[:18]}20240315001"),
            ("REJECTED", merchant),
            ("ACK_TWICE", details),
            ("ACK_CONTRADICTS", details),
            ("ACK_CONTRADICTS", merchant),
        ]
    )
    assert await states(pg) == [(positions, "SENT"), (details, "ACKNOWLEDGED"), (merchant, "REJECTED")]


async def test_a_generation_is_sent_like_any_file_and_which_one_he_holds_is_shown(
    pg: Pg, settings: Settings, server: Sshd, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = (await visit(settings)).sent[1]
    assert len(take_away(server)) == 3
    again = await resend(pg, day_folder(settings.clearing_folder, day), details, "lost", "li wei")
    assert (await visit(settings)).sent == (again.name,)
    assert check_whole(server) == {again.name}
    (server.inbox / f"{again.name}.ack").write_text("")
    await visit(settings)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", settings.database.url.get_secret_value())
    shown = json.loads((await command("deliveries", "show", "second", "--json", "--all")).stdout)
    assert {row["name"]: (row["state"], row["holds"]) for row in shown["files"]} == {
        **{name: ("SENT", None) for name, _ in (await states(pg))[:3] if name != details},
        details: ("SENT", "002"),
        again.name: ("ACKNOWLEDGED", "002"),
    }


async def test_a_rejected_file_is_sent_once_more_when_an_operator_says_so(
    pg: Pg, settings: Settings, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = (await visit(settings)).sent[0]
    (server.inbox / f"{positions}.rej").write_text("01 digest")
    await visit(settings)
    take_away(server)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", settings.database.url.get_secret_value())
    done = await command("deliveries", "retry", "second", positions)
    assert done.output == "second: tried at the next visit, 1 files\n"
    assert (await visit(settings)).sent == (positions,)
    assert check_whole(server) == {positions}
    nothing = await command("deliveries", "retry", "second", positions)
    assert "neither waits for second nor was rejected" in str(nothing.exception)


# --- what he sends


def left(server: Sshd, path: Path, *, digest: str = "") -> str:
    """A file in his outbox, with its mark last."""
    content = path.read_bytes()
    (server.outbox / path.name).write_bytes(content)
    digest = digest or new_digest("sm3", content).hexdigest()
    (server.outbox / f"{path.name}.ok").write_text(f"{digest}  {path.name}\n")
    return path.name


@pytest.fixture(scope="module")
def vault(city: Closed) -> None:
    """One that knows the TACs of his records."""
    key = city.folder.parent / "keyfile"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    with psycopg.connect(city.url) as connection:
        enter_tac_roots(DatabaseKeyStore(connection), UnlockSecret.key_file(key))


@pytest.fixture
def depot(vault: None, tmp_path: Path) -> Path:
    """Where his files are made."""
    return tmp_path


async def test_what_he_leaves_is_fetched_by_its_mark_taken_and_answered_once(
    pg: Pg, settings: Settings, server: Sshd, depot: Path, day: date
) -> None:
    records = [Ride(card=n).pack() for n in (1, 2)]
    files = [depot_file(depot, records, day, sequence=number, sender=OTHER) for number in (2, 3, 4, 5)]
    good, false, unmarked, wrong_kind = files
    left(server, good)
    left(server, false, digest="0" * 64)
    (server.outbox / unmarked.name).write_bytes(b"in the writing")
    stranger = left(server, depot_file(depot, records, day))  # sent by somebody else
    kind = left(server, wrong_kind.rename(depot / f"NS{wrong_kind.name[2:]}"))
    first = await visit(settings)
    assert first.fetched == (good.name,)
    answers = {
        path.name: path.read_text().splitlines()[1]
        for path in server.outbox.iterdir()
        if path.suffix in (".ack", ".rej")
    }
    assert answers == {
        f"{good.name}.ack": "00 2 lines taken",
        f"{false.name}.rej": f"01 the digest in {false.name}.ok is not the file's",
        f"{stranger}.rej": "04 the sender in the name is not you",
        f"{kind}.rej": "02 files of type NS are not expected from you",
    }
    inbox = settings.clearing_folder / "inbox" / "second"
    assert names_in(inbox) == [good.name]
    assert await alarms(pg) == [("GAP", f"{good.name[:-3]}001")]
    # What was sent amends what was refused, under the same name; what was taken is not taken again.
    for answer in answers:
        if not answer.startswith(false.name):
            (server.outbox / answer).unlink()
    left(server, false)
    os.utime(server.outbox / f"{false.name}.ok", (2_000_000_000, 2_000_000_000))
    second = await visit(settings)
    assert second.fetched == (false.name,)
    assert {path.name for path in server.outbox.glob("*.ack")} == {f"{good.name}.ack", f"{false.name}.ack"}
    taken = await (await pg.execute("SELECT name, status FROM received_file ORDER BY name")).fetchall()
    assert taken == [(good.name, "00"), (false.name, "00")]


async def test_another_file_under_a_name_that_was_taken_is_refused_and_keeps_its_own_place(
    pg: Pg, settings: Settings, server: Sshd, depot: Path, day: date
) -> None:
    name = left(server, depot_file(depot, [Ride(card=1).pack()], day, sender=OTHER))
    await visit(settings)
    (server.outbox / f"{name}.ack").unlink()
    left(server, depot_file(depot, [Ride(card=2).pack()], day, sender=OTHER))
    (server.outbox / f"XF{OTHER}9999000020240315009.ok").write_text("half a ma")
    (server.outbox / f"XF{OTHER}9999000020240315009").write_text("")
    await visit(settings)
    assert "03 a file of this name" in (server.outbox / f"{name}.rej").read_text()
    assert await alarms(pg) == [("BAD_MARK", f"XF{OTHER}9999000020240315009"), ("DUPLICATE", name)]
    inbox = settings.clearing_folder / "inbox" / "second"
    assert len(list(inbox.rglob(name))) == 2
    rows = await (await pg.execute("SELECT state FROM delivery_inbox ORDER BY fetched_at")).fetchall()
    assert rows == [("TAKEN",), ("REFUSED",)]


# --- commands and the process


async def test_operators_see_and_do_it_by_commands(
    pg: Pg, settings: Settings, server: Sshd, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = settings.delivery.partners[0].model_dump(mode="json")
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", settings.database.url.get_secret_value())
    monkeypatch.setenv("CARDSWITCH_CLEARING__FOLDER", str(settings.clearing_folder))
    monkeypatch.setenv("CARDSWITCH_DELIVERY__PARTNERS", json.dumps([partner]))
    done = await command("deliver", "--once")
    assert (done.exit_code, done.output) == (0, "second: 3 sent, 0 receipts, 0 fetched\n"), done.exception
    listed = json.loads((await command("deliveries", "list", "--json")).stdout)
    (row,) = listed["partners"]
    assert (row["partner"], row["waiting"], row["sent"], row["failures"]) == ("second", 0, 3, 0)
    assert "SENT" in (await command("deliveries", "show", "second")).output
    assert "alarms: none" in (await command("deliveries", "list", "--alarms")).output
    assert "nothing was ever sent" in str((await command("deliveries", "show", "nobody")).exception)
    assert "not among delivery.partners" in str((await command("deliver", "--partner", "nobody")).exception)
    async with await connect(settings.database.url.get_secret_value()) as other:
        await other.execute("SELECT pg_advisory_lock(%s, hashtext('second'))", (0x43435350,))
        busy = await command("deliver", "--partner", "second", "--json")
    assert busy.exit_code == 1
    assert json.loads(busy.stdout)[0]["fault"] == "second is being served by another process"


async def test_serve_starts_a_process_that_delivers_and_takes_it_along(
    pg: Pg, settings: Settings, server: Sshd, city: Closed, vault: None, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "CARDSWITCH_DATABASE__URL": city.url,
        "CARDSWITCH_VAULT__KEY_FILE": str(city.folder.parent / "keyfile"),
        "CARDSWITCH_TERMINALS__PORT": "0",
        "CARDSWITCH_HTTP__PORT": "0",
        "CARDSWITCH_CLEARING__FOLDER": str(city.folder),
        "CARDSWITCH_DELIVERY__EVERY_S": "0.2",
        "CARDSWITCH_DELIVERY__PARTNERS": json.dumps([settings.delivery.partners[0].model_dump(mode="json")]),
    }
    process = await asyncio.to_thread(SwitchProcess, environment, tmp_path / "log")
    try:
        await asyncio.to_thread(
            until, lambda: len(list(server.inbox.glob("*.ok"))) == 3, 120.0, "three files"
        )
        assert len(check_whole(server)) == 3
        assert "cardswitch_delivery_waiting" in (await asyncio.to_thread(process.get, "/metrics"))[1]
    finally:
        await asyncio.to_thread(process.end)
    async with asyncio.timeout(60):  # nobody else is at it any more, as soon as the server has noticed
        while (last := await attempt(settings)).fault == "second is being served by another process":
            await asyncio.sleep(0.05)
    assert (last.fault, last.sent) == ("", ())
