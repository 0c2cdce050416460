"""A partner's file on its way in: whole or not at all, once, and each way in which one can be wrong."""

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from switch.clearing.received import Receipt
from switch.clearing.reconcile import take
from switch.clearing.reconcile.take import take_partner_file
from switch.domain.errors import InputRefused
from switch.storage.pool import connect
from terminal_sim.host.day_file import write_file
from tests.helpers.clearing_day import CENTRE
from tests.helpers.reconciling import BANK, TERMS, Leg, Pg, found_bank, rows

pytestmark = pytest.mark.server

LEGS = [Leg(number, 100 + number) for number in range(1, 11)]


@pytest.fixture
async def day(pg: Pg) -> date:
    (found,) = await found_bank(pg, 1)
    return found


def file_of(folder: Path, day: date, count: int = 10, **more: Any) -> Path:
    return write_file(folder, BANK, CENTRE, day, [leg.item(day) for leg in LEGS[:count]], **more)


async def taken(pg: Pg, path: Path) -> Receipt:
    return await take_partner_file(pg, path, TERMS)


async def tables(pg: Pg) -> list[tuple[Any, ...]]:
    return await rows(pg, "SELECT relname FROM pg_class WHERE relname ~ '^partner_line_[0-9]+$'")


async def test_a_file_is_taken_once_and_gives_its_receipt_again(pg: Pg, tmp_path: Path, day: date) -> None:
    path = file_of(tmp_path, day)
    first = await taken(pg, path)
    assert (first.status, first.lines, first.total_fen, first.business_date, first.repeated) == (
        "00",
        10,
        1_055,
        day,
        False,
    )
    assert await taken(pg, path) == first._replace(repeated=True)
    assert await rows(pg, "SELECT count(*), sum(effect_fen) FROM partner_line") == [(10, 1_055)]
    other = file_of(tmp_path, day, 9)
    assert (await taken(pg, other)).status == "03"
    later = file_of(tmp_path, day, sequence=4)
    assert (await taken(pg, later)).missing == (2, 3)
    empty = file_of(tmp_path, day, 0, sequence=5)
    assert ((await taken(pg, empty)).status, (await taken(pg, empty)).lines) == ("00", 0)


def swap(old: bytes, new: bytes) -> Any:
    return lambda whole: whole.replace(old, new, 1)


SPOILT: list[tuple[Any, str, str]] = [
    (lambda whole: b"\xef\xbb\xbf" + whole, "02", "byte order mark"),
    (lambda whole: whole.decode().encode("utf-16"), "02", "the file is UTF-16"),
    (lambda whole: whole.decode().encode("utf-16-le"), "02", "the file is UTF-16"),
    (
        lambda whole: whole.replace(b"5411", "超市".encode("gbk"), 1),
        "02",
        "line 2, column 115: ASCII only",
    ),
    (lambda whole: whole.replace(b"\r\n", b"\n"), "02", "line 1: header must be H"),
    (lambda whole: whole[:82] + whole[82 + 302 :], "02", "count differs"),
    (lambda whole: whole + whole[82 : 82 + 302], "02", "bytes after the trailer"),
    (lambda whole: whole[:-92], "02", "neither a detail line nor a trailer"),
    (lambda whole: whole[: 82 + 302 * 4], "02", "line 6: the file ends before its trailer"),
    (
        lambda whole: whole[: 82 + 302 * 4 + 100],
        "02",
        "line 6, column 101: detail line has the wrong length",
    ),
    (swap(b"33500001", b"33500002"), "01", "digest"),
    (swap(b"000000000101", b"000000000102"), "02", "total amount differs"),
    (swap(b"D49993350", b"D4999335\n"), "02", "line 2, column"),
]


async def test_a_file_that_is_not_whole_leaves_nothing_but_its_refusal(
    pg: Pg, tmp_path: Path, day: date
) -> None:
    path = file_of(tmp_path, day)
    whole = path.read_bytes()
    for number, (spoil, status, reason) in enumerate(SPOILT, 1):
        path.write_bytes(spoil(whole))
        refused = await taken(pg, path)
        assert (refused.status, reason in refused.reason) == (status, True), (reason, refused)
        assert (await taken(pg, path)).repeated
        assert await tables(pg) == []
        last = "SELECT reason, count(*) OVER () FROM partner_file ORDER BY file_no DESC LIMIT 1"
        assert await rows(pg, last) == [(refused.reason, number)]
    path.write_bytes(whole)
    assert (await taken(pg, path)).status == "00"


async def test_a_file_of_somebody_else_for_somebody_else_or_of_another_time_is_refused(
    pg: Pg, tmp_path: Path, day: date
) -> None:
    items = [LEGS[0].item(day)]
    stranger = await taken(pg, write_file(tmp_path, "01030000", CENTRE, day, items))
    assert (stranger.status, "no partner" in stranger.reason) == ("04", True)
    elsewhere = await taken(pg, write_file(tmp_path, BANK, "99999999", day, items))
    assert (elsewhere.status, "receiver" in elsewhere.reason) == ("02", True)
    ahead = await taken(pg, write_file(tmp_path, BANK, CENTRE, day + timedelta(days=30), items))
    assert (ahead.status, "lies ahead" in ahead.reason) == ("02", True)
    renamed = file_of(tmp_path, day).rename(tmp_path / f"CM{BANK}{CENTRE}{day - timedelta(days=1):%Y%m%d}001")
    assert "header and file name differ" in (await taken(pg, renamed)).reason
    with pytest.raises(InputRefused, match="No such file"):
        await taken(pg, tmp_path / f"CM{BANK}{CENTRE}{day:%Y%m%d}009")
    with pytest.raises(InputRefused, match="XF files are not compared"):
        await taken(pg, tmp_path / f"XF{BANK}{CENTRE}{day:%Y%m%d}009")


async def test_of_two_takers_one_works_and_the_other_says_so(
    pg: Pg, postgres_url: str, tmp_path: Path, day: date
) -> None:
    path = file_of(tmp_path, day)
    async with await connect(postgres_url) as other:
        await other.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (take.NAME_LOCK, path.name))
        with pytest.raises(InputRefused, match="is being taken by another process"):
            await taken(pg, path)
        await other.execute("SELECT pg_advisory_unlock_all()")
        ends = await asyncio.gather(taken(pg, path), taken(other, path), return_exceptions=True)
    good = [end for end in ends if isinstance(end, Receipt)]
    assert good
    assert {end.status for end in good} == {"00"}
    assert await rows(pg, "SELECT count(*) FROM partner_line") == [(10,)]


async def test_what_a_killed_taking_left_is_dropped_and_what_is_going_on_is_not(
    pg: Pg, postgres_url: str, tmp_path: Path, day: date
) -> None:
    await pg.execute("SELECT make_partner_lines(900001), make_partner_lines(900002)")
    async with await connect(postgres_url) as other:
        await other.execute("SELECT pg_advisory_lock(%s, 900002)", (take.TABLE_LOCK,))
        await taken(pg, file_of(tmp_path, day))
        assert ("partner_line_900002",) in await tables(pg)
        assert ("partner_line_900001",) not in await tables(pg)


async def test_lines_that_a_crash_has_emptied_come_back_with_the_file(
    pg: Pg, tmp_path: Path, day: date
) -> None:
    path = file_of(tmp_path, day)
    await taken(pg, path)
    ((table,),) = await tables(pg)
    await pg.execute(f"TRUNCATE {table}".encode())
    assert (await taken(pg, path)).repeated
    assert await rows(pg, "SELECT count(*), sum(effect_fen) FROM partner_line") == [(10, 1_055)]


async def test_lines_of_old_files_are_dropped(pg: Pg, tmp_path: Path, day: date) -> None:
    await taken(pg, file_of(tmp_path, day - timedelta(days=take.KEPT_DAYS + 1)))
    await taken(pg, file_of(tmp_path, day, 3))
    assert await rows(pg, "SELECT count(*) FROM partner_line") == [(3,)]


async def test_a_file_of_several_stretches_is_taken_whole(
    pg: Pg, tmp_path: Path, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take, "BLOCK_LINES", 3)
    monkeypatch.setattr(take, "_BLOCKS_AT_ONCE", 2)
    await taken(pg, file_of(tmp_path, day))
    assert await rows(pg, "SELECT array_agg(line_no ORDER BY line_no) FROM partner_line") == [
        (list(range(1, 11)),)
    ]
    bad = file_of(tmp_path, day, sequence=2)
    bad.write_bytes(bad.read_bytes()[:-400] + bad.read_bytes()[-400:].replace(b"D4", b"X4", 1))
    assert (await taken(pg, bad)).status == "02"
    assert len(await tables(pg)) == 1
