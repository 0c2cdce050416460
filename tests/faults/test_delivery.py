"""Delivery on bad days: cut at any byte, killed at any step, a server that is full, read-only or somebody else's, two deliverers at once.

In the end every file is there once, whole and complete.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.close import day_folder
from switch.clearing.deliveries import ATTEMPTS_MAX, Deliveries
from switch.clearing.delivery_round import Round, Visit
from switch.clearing.remote import Entry, RemoteFault
from switch.operations.delivering import Deliverer, line_terms
from switch.settings import Settings
from switch.storage.pool import connect
from switch.transports.sftp_partner import SftpPartner, sftp_line
from tests.helpers.partners import (
    Closed,
    alarms,
    check_whole,
    closed_city,
    forget,
    partner_settings,
    partner_terms,
    settings_of,
    states,
    take_away,
)
from tests.helpers.sshd import Sshd, cut_after, stalled_after

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd") / "partner") as server:
        yield server


@pytest.fixture(scope="module")
def city(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    with closed_city(server_url, "delivered_badly", tmp_path_factory.mktemp("city") / "clearing") as city:
        yield city


@pytest.fixture
async def pg(city: Closed, server: Sshd) -> AsyncIterator[Pg]:
    """A connection to the city, which has forgotten what was delivered."""
    async with await connect(city.url) as connection:
        await forget(connection, server)
        yield connection


def settings(server: Sshd, city: Closed, **changes: Any) -> Settings:
    return settings_of(city.folder, city.url, partner_settings(server, city.day, **changes))


async def visit(settings: Settings) -> Visit:
    (visit,) = await Deliverer(settings.database.url.get_secret_value(), settings).once()
    return visit


async def test_a_line_that_is_cut_at_any_byte_sends_each_file_once_and_whole(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path
) -> None:
    good = settings(server, city)
    names = list((await visit(good)).sent)
    cut = 0
    # From within the greeting to behind the last byte of a visit to three small files.
    for count in (20, 1_500, *range(2_600, 16_000, 1_340)):
        await forget(pg, server)
        async with cut_after(server.port, count) as port:
            first = await visit(settings(server, city, port=port))
        cut += first.fault != ""
        check_whole(server)
        taken = take_away(server)  # the partner is quick
        last = await visit(good)
        assert last.fault == "", (count, last)
        check_whole(server)
        taken += take_away(server)
        assert sorted(taken) == sorted(names), count
        assert [path.name for path in server.inbox.iterdir()] == [], count
        assert await states(pg) == [(name, "SENT") for name in names]
    assert cut > 5


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


class MortalPartner(SftpPartner):
    """Dies before its nth step, or behind it."""

    def __init__(self, line: SftpPartner, left: float) -> None:
        super().__init__(line._sftp, 20.0)
        self.left = left

    @contextlib.asynccontextmanager
    async def _step(self, what: str) -> AsyncIterator[None]:
        self.left -= 0.5
        if self.left == 0:
            raise Killed
        async with super()._step(what):
            yield
        self.left -= 0.5
        if self.left == 0:
            raise Killed


async def test_killed_between_any_two_steps_the_next_visit_goes_on(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path
) -> None:
    folder = day_folder(city.folder, city.day)
    terms = partner_terms(server, city.day, types=("NP",), outbox="")

    async def take(_path: Path) -> None:
        """Nothing is taken here."""

    async def run(line: SftpPartner) -> Visit:
        async with await connect(city.url) as connection:
            deliveries = Deliveries(connection, terms)
            await deliveries.queue()
            return await Round(deliveries, line, lambda _day: folder, tmp_path, take).run()

    async with sftp_line(line_terms(settings(server, city).delivery.partners[0])) as line:
        half_steps, ended = 1, False
        while not ended:
            quick = half_steps % 2  # whether the partner takes what is marked before we come again
            await forget(pg, server)
            with contextlib.suppress(Killed):
                await run(MortalPartner(line, half_steps / 2))
                ended = True
            check_whole(server)
            taken = take_away(server) if quick else []
            last = await run(line)
            assert last.fault == "", (half_steps, last)
            taken += take_away(server)
            assert [(name, "SENT") for name in taken] == await states(pg), half_steps
            assert [path.name for path in server.inbox.iterdir()] == [], half_steps
            half_steps += 1
    assert half_steps > 30


async def test_a_server_that_is_read_only_is_told_of_and_tried_again_later(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "other", options="-R") as other:
        at = settings(other, city)
        assert "SFTPPermissionDenied" in (await visit(at)).fault
        assert await states(pg) != []
        assert {state for _, state in await states(pg)} == {"WAITING"}
        row = await (
            await pg.execute("SELECT failures, next_try_at > clock_timestamp() FROM delivery_partner")
        ).fetchone()
        assert row == (1, True)
        assert await Deliverer(city.url, at).once(only_due=True) == []
    assert (await visit(settings(server, city))).fault == ""
    assert len(check_whole(server)) == 3


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 36 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=36k", "none", str(folder)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not made:
        pytest.skip("only root can make a disk that is small, and not everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_servers_disk_that_is_full_gets_the_rest_when_there_is_room(
    pg: Pg, server: Sshd, city: Closed, small: Path
) -> None:
    (small / "others").write_bytes(bytes(26_000))
    at = settings(server, city, folder=str(small))
    first = await visit(at)
    assert first.fault != ""
    assert len(first.sent) < 3
    for path in small.glob("*.ok"):
        assert path.with_suffix("").exists()
    (small / "others").unlink()
    last = await visit(at)
    assert (len(first.sent) + len(last.sent), last.fault) == (3, "")
    assert [path.suffix for path in sorted(small.iterdir())] == ["", ".ok"] * 3


async def test_a_changed_host_key_sends_nothing_and_is_an_alarm(pg: Pg, city: Closed, tmp_path: Path) -> None:
    with Sshd(tmp_path / "other") as other:
        at = settings(other, city)
        other.stop()
        changed = other.new_host_key()
        other.start()
        first = await visit(at)
        assert "is not the one that is known; nothing was sent" in first.fault
        assert list(other.inbox.iterdir()) == []
        (alarm,) = await alarms(pg)
        assert alarm[0] == "HOST_KEY"
        assert alarm[1].startswith("SHA256:")
        await visit(at)
        assert len(await alarms(pg)) == 1
        assert (await visit(settings(other, city, host_key=changed))).fault == ""
        assert len(check_whole(other)) == 3


async def test_of_two_deliverers_at_once_one_works_and_the_other_says_so(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path
) -> None:
    at = settings(server, city)
    both = await asyncio.gather(visit(at), visit(at))
    told = [one for one in both if one.fault == "second is being served by another process"]
    sent = [len(one.sent) for one in both]
    assert sorted(sent) == [0, 3]
    assert len(told) <= 1  # the first may have ended before the second came
    assert len(check_whole(server)) == 3


async def test_a_file_that_was_changed_on_our_disk_is_not_sent_and_holds_up_those_behind_it(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path
) -> None:
    at = settings(server, city)
    path = next(day_folder(city.folder, city.day).glob("CM*99993310*1"))
    content = path.read_bytes()
    for spoilt, words in ((content[:-3] + b"X\r\n", "is not as it was written"), (None, "No such file")):
        if spoilt is None:
            path.unlink()
        else:
            path.write_bytes(spoilt)
        assert words in (await visit(at)).fault
        assert [state for _, state in await states(pg)] == ["SENT", "WAITING", "WAITING"]
        assert not (server.inbox / path.name).exists()
    path.write_bytes(content)
    assert len((await visit(at)).sent) == 2
    assert len(check_whole(server)) == 3


async def test_what_is_tried_too_often_is_given_up_until_an_operator_says_so(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path
) -> None:
    at = settings(server, city)
    terms = partner_terms(server, city.day)
    async with await connect(city.url) as connection:
        deliveries = Deliveries(connection, terms)
        await deliveries.queue()
        await pg.execute(
            "UPDATE delivery SET attempts = %s, queued_at = queued_at - interval '25 hours'", (ATTEMPTS_MAX,)
        )
        assert (await visit(at)).sent == ()
        kinds = [kind for kind, _ in await alarms(pg)]
        assert kinds == ["BEHIND", "GIVEN_UP"]
    await pg.execute("UPDATE delivery SET attempts = 0")
    assert len((await visit(at)).sent) == 3


async def test_a_file_is_sent_when_it_is_marked_here_and_waiting_for_that_is_no_try(
    pg: Pg, server: Sshd, city: Closed
) -> None:
    at = settings(server, city)
    mark = next(day_folder(city.folder, city.day).glob("CM*99993310*1.ok"))
    content = mark.read_bytes()
    mark.unlink()
    try:
        for _ in range(2):
            assert "is not marked complete in" in (await visit(at)).fault
    finally:
        mark.write_bytes(content)
    assert [state for _, state in await states(pg)] == ["SENT", "WAITING", "WAITING"]
    assert not (server.inbox / mark.stem).exists()
    tried = await (await pg.execute("SELECT attempts FROM delivery ORDER BY number")).fetchall()
    assert tried == [(1,), (0,), (0,)]
    assert len((await visit(at)).sent) == 2


async def test_a_file_that_was_signed_never_goes_out_without_its_signature(
    pg: Pg, server: Sshd, city: Closed
) -> None:
    at = settings(server, city)
    path = next(day_folder(city.folder, city.day).glob("CM*99993310*1"))
    beside = path.with_name(f"{path.name}.sig")
    beside.write_bytes(b"nobody's")  # of a file that was never signed: it stays here
    assert len((await visit(at)).sent) == 3
    assert not list(server.inbox.glob("*.sig"))
    await forget(pg, server)
    await pg.execute(
        "INSERT INTO file_signature (name, sm3, key_name, public_key, signature)"
        " SELECT name, sm3, 'FSK', %s, %s FROM clearing_file WHERE name = %s",
        (bytes(65), b"signature", path.name),
    )
    try:
        assert "is not the signature that was stored" in (await visit(at)).fault
        beside.unlink()
        assert ".sig: No such file" in (await visit(at)).fault
        assert not (server.inbox / path.name).exists()
        beside.write_bytes(b"signature")
        assert len((await visit(at)).sent) == 2
        assert (server.inbox / beside.name).read_bytes() == b"signature"
    finally:
        beside.unlink(missing_ok=True)
        async with pg.transaction():
            await pg.execute("SET LOCAL session_replication_role = replica")
            await pg.execute("DELETE FROM file_signature")


@contextlib.asynccontextmanager
async def silent_port() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server that takes a connection and never says anything; the event: somebody has come."""
    came, end = asyncio.Event(), asyncio.Event()

    async def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await end.wait()
        writer.transport.abort()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        end.set()
        server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the lines end


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not what():
            await asyncio.sleep(0.02)


async def test_a_partner_who_says_nothing_holds_up_neither_the_others_nor_the_end(
    pg: Pg, server: Sshd, city: Closed
) -> None:
    async with silent_port() as (port, came):
        silent = partner_settings(server, city.day, name="silent", port=port, connect_s=300)
        at = settings_of(city.folder, city.url, silent, partner_settings(server, city.day))
        at = at.model_copy(update={"delivery": at.delivery.model_copy(update={"every_s": 0.05})})
        stopping = asyncio.Event()
        keeping = asyncio.create_task(Deliverer(city.url, at).keep_on(stopping))
        await came.wait()
        await until(lambda: len(list(server.inbox.glob("*.ok"))) == 3)
        (server.inbox / f"{take_away(server)[0]}.ack").write_text("")
        await until(lambda: not list(server.inbox.iterdir()))  # a later visit, while the other still waits
        stopping.set()
        async with asyncio.timeout(60):
            await keeping


async def test_a_visit_that_hangs_in_the_middle_of_a_file_ends_at_once_and_goes_on_later(
    pg: Pg, server: Sshd, city: Closed
) -> None:
    async with stalled_after(server.port, 4_000) as (port, stalled):
        at = settings(server, city, port=port, answer_s=600, connect_s=300)
        stopping = asyncio.Event()
        keeping = asyncio.create_task(Deliverer(city.url, at).keep_on(stopping))
        await stalled.wait()
        stopping.set()
        async with asyncio.timeout(60):
            await keeping
    assert (await visit(settings(server, city))).fault == ""
    assert len(check_whole(server)) == 3


async def test_a_visit_has_an_end_however_slow_the_partner_is(
    pg: Pg, server: Sshd, city: Closed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(_self: SftpPartner, _path: str, blocks: Any) -> None:
        async for _ in blocks:
            await asyncio.sleep(3600)

    monkeypatch.setattr(SftpPartner, "write", write)
    slow = await visit(settings(server, city, answer_s=3600, visit_max_s=5))
    assert slow.fault == "not done in 5 s (visit_max_s); the next visit goes on"
    assert await (await pg.execute("SELECT failures FROM delivery_partner")).fetchone() == (1,)
    monkeypatch.undo()
    assert (await visit(settings(server, city))).fault == ""
    assert len(check_whole(server)) == 3


async def test_what_a_server_says_cannot_keep_a_failure_from_being_recorded(
    pg: Pg, server: Sshd, city: Closed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_self: SftpPartner, _path: str, blocks: Any) -> None:
        await blocks.aclose()
        raise RemoteFault("disk \x00 full, \udcc4 of 3133500100000001239")

    monkeypatch.setattr(SftpPartner, "write", refuse)
    at = settings(server, city)
    said = "disk   full,   of 313350*********1239"
    assert (await visit(at)).fault == said
    assert await (await pg.execute("SELECT last_error FROM delivery_partner")).fetchone() == (said,)
    assert await (await pg.execute("SELECT last_error FROM delivery ORDER BY number LIMIT 1")).fetchone() == (
        said,
    )


async def test_what_the_database_refuses_is_a_failed_visit_of_that_partner(
    pg: Pg, server: Sshd, city: Closed, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = SftpPartner.entries

    async def spoilt(self: SftpPartner, folder: str) -> list[Entry]:
        return [entry._replace(written_at=1 << 70) for entry in await entries(self, folder)]

    monkeypatch.setattr(SftpPartner, "entries", spoilt)
    at = settings(server, city)
    (server.inbox / f"CM{'9' * 16}20240315001.ack").write_text("")
    assert (await visit(at)).fault.startswith("the database refused: ")
    assert await (await pg.execute("SELECT failures FROM delivery_partner")).fetchone() == (1,)


async def test_names_that_are_no_text_are_passed_over(pg: Pg, server: Sshd, city: Closed) -> None:
    at = settings(server, city)
    name = (await visit(at)).sent[0]
    for place in (server.inbox, server.outbox):
        for odd in ("对账".encode("gbk"), "对账.ack".encode("gbk"), "对账.ok".encode(), b"a\nb.ack"):
            (Path(os.fsdecode(os.fsencode(place) + b"/" + odd))).write_bytes(b"")
    (server.inbox / f"{name}.ack").write_text("")
    again = await visit(at)
    assert (again.fault, again.receipts) == ("", 1)
    assert await alarms(pg) == []


async def test_a_file_without_end_on_the_server_is_not_read_further_than_it_should_be(
    pg: Pg, server: Sshd, city: Closed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_self: SftpPartner, _path: str) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield bytes(1_000)

    monkeypatch.setattr(SftpPartner, "read", endless)
    async with asyncio.timeout(120):
        assert "what lies there is not what was sent" in (await visit(settings(server, city))).fault
    assert not list(server.inbox.glob("*.ok"))
