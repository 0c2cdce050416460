"""Depot files: whole or refused with line and column, each record once, the answers of the day, and runs that stop in the middle."""

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing import received
from switch.clearing.close import CloseTerms, close_day
from switch.clearing.depot_files import depot_kind
from switch.clearing.received import Receipt, Terms, take_file
from switch.domain.errors import InputRefused
from switch.keys.software_vault import SoftwareVault
from switch.ledger.days import open_day
from switch.purse.intake import inline_tacs
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.depots import CENTRE, OWN, depot_file
from tests.helpers.offline import FOREIGN_ISSUER, Ride, build

pytestmark = pytest.mark.server

TERMS = Terms(OWN, CENTRE, 2, "li wei")


@pytest.fixture
async def day(postgres_url: str, pg: AsyncConnection[Any]) -> date:
    """The open day of a town with buses."""
    await build(postgres_url)
    row = await open_day(pg)
    assert row is not None
    return row.day


@pytest.fixture
async def take(postgres_url: str, day: date, tac_vault: SoftwareVault) -> Any:
    """Takes a file as one process would; several calls are several processes."""

    async def one(path: Path, **changes: Any) -> Receipt:
        async with await connect(postgres_url) as connection:
            digest_all = inline_tacs(tac_vault)
            return await take_file(
                connection,
                path,
                TERMS,
                lambda name: depot_kind(connection, name, TERMS, digest_all),
                **changes,
            )

    return one


async def rows(pg: AsyncConnection[Any], query: str) -> list[Any]:
    return await (await pg.execute(query.encode())).fetchall()


def spoilt(raw: bytes) -> bytes:
    return raw[:94] + bytes((raw[94] ^ 1, raw[95]))


def assorted() -> list[bytes]:
    """One record for each thing that can be said of one in a file."""
    good = Ride(card=1, atc=0).pack()
    return [
        good,
        Ride(card=2, atc=0, amount_fen=300, sm4=False).pack(),
        good,  # 03
        spoilt(Ride(card=3).pack()),  # 02, unreadable
        Ride(card=4, tac=b"\1\2\3\4").pack(),  # 01
        Ride(card=5, kind=RecordKind.GREY).pack(),  # 04
        Ride(card=6, issuer=FOREIGN_ISSUER).pack(),  # 11
        Ride(card=7, psam=b"\x33\x50\x99\x99\x99\x99").pack(),  # 02, nobody's PSAM
        Ride(card=8, terminal_no=8).pack(),  # 02, another acquirer's PSAM
        Ride(card=9, terminal_no=7).pack(),  # another merchant of the sender
    ]


async def test_every_record_has_its_result_and_stands_with_its_terminal_and_merchant(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path
) -> None:
    receipt = await take(depot_file(tmp_path, assorted(), day))
    assert (receipt.status, receipt.lines, receipt.business_date) == ("00", 10, day)
    assert {code: count for code, (count, _) in receipt.results.items()} == {
        "01": 1, "02": 3, "03": 1, "04": 1, "10": 3, "11": 1,
    }  # fmt: skip
    assert receipt.results["10"] == (3, 700)
    found = await rows(
        pg,
        "SELECT result, terminal_no, merchant_no, batch_no, credit_owner FROM purse_record ORDER BY entry_no",
    )
    assert found[0] == ("10", 1, 1, 0, 1)
    assert found[7] == ("02", 0, 0, 0, None)
    assert found[8][:4] == ("02", 0, 0, 0)
    assert found[9] == ("10", 7, 2, 0, 2)


async def test_the_same_file_again_gives_its_receipt_and_writes_nothing(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path
) -> None:
    path = depot_file(tmp_path, assorted(), day)
    first = await take(path)
    again = await take(path)
    assert again == first._replace(repeated=True)
    assert await rows(pg, "SELECT count(*) FROM purse_record") == [(10,)]


async def test_another_file_of_the_same_name_is_refused_and_the_same_records_under_another_name_are_duplicates(
    take: Any, day: date, tmp_path: Path
) -> None:
    records = [Ride(card=1).pack(), Ride(card=2).pack()]
    await take(depot_file(tmp_path, records, day))
    other = await take(depot_file(tmp_path, records[:1], day))
    assert (other.status, other.results) == ("03", {})
    third = await take(depot_file(tmp_path, records, day, sequence=3))
    assert third.results == {"03": (2, 400)}
    assert third.missing == (2,)


def changed(content: bytes, at: int, byte: bytes) -> bytes:
    return content[:at] + byte + content[at + 1 :]


HEAD, LINE = 82, 203


SPOILT: list[tuple[Callable[[bytes], bytes], str, str]] = [
    (lambda c: changed(c, HEAD + LINE + 20, b"g"), "02", "line 3, column 21: record: upper-case hex only"),
    (lambda c: changed(c, HEAD + LINE + 20, b"\xff"), "02", "line 3, column 21: ASCII only"),
    (lambda c: changed(c, HEAD + 8, b"7"), "02", "line 2, column 2: line numbers must count from 1"),
    (lambda c: c[: HEAD + 100] + c[HEAD + 101 :], "02", "line 2, column 201: detail line has the wrong length"),
    (lambda c: c[:-30], "02", "line 4: neither a detail line nor a trailer of 90 characters"),
    (lambda c: c + b"\r\n", "02", "bytes after the trailer"),
    (lambda c: changed(c, len(c) - 3, b"x"), "01", "digest in the trailer is not the file's"),
    (lambda c: c[:HEAD] + c[HEAD + LINE :], "02", "line 2, column 2: line numbers must count from 1"),
    (lambda c: b"", "02", "line 1: header must be H and 80 characters, then CRLF"),
]  # fmt: skip


async def test_a_file_that_is_not_whole_is_refused_where_it_breaks_and_nothing_is_taken(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path
) -> None:
    for sequence, (spoil, status, reason) in enumerate(SPOILT, 1):
        records = [Ride(card=1, atc=sequence).pack(), Ride(card=2, atc=sequence).pack()]
        path = depot_file(tmp_path, records, day, sequence=sequence)
        path.write_bytes(spoil(path.read_bytes()))
        receipt = await take(path)
        assert (receipt.status, receipt.reason, receipt.repeated) == (status, reason, False)
        assert (await take(path)).repeated
    assert await rows(pg, "SELECT count(*) FROM purse_record") == [(0,)]
    found = await rows(pg, "SELECT status, reason FROM received_file ORDER BY file_no")
    assert found == [(status, reason) for _, status, reason in SPOILT]
    # The name is free: the sender may send what it meant.
    assert (await take(depot_file(tmp_path, [Ride(card=1).pack()], day))).status == "00"


async def test_a_stranger_a_wrong_address_and_sequence_000_are_refused(
    take: Any, day: date, tmp_path: Path
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sender": "11112222"}, "04"),
        ({"receiver": "11112222"}, "02"),
        ({"sequence": 0}, "02"),
    ]
    for changes, status in cases:
        assert (await take(depot_file(tmp_path, [Ride().pack()], day, **changes))).status == status


async def test_a_file_of_the_day_after_tomorrow_is_refused(take: Any, day: date, tmp_path: Path) -> None:
    path = depot_file(tmp_path, [Ride().pack()], day + timedelta(days=2))
    assert (await take(path)).reason == "line 1: clearing date lies ahead"


async def test_an_empty_file_is_taken(take: Any, day: date, tmp_path: Path) -> None:
    receipt = await take(depot_file(tmp_path, [], day))
    assert (receipt.status, receipt.results, receipt.business_date) == ("00", {}, day)


class _Stop(Exception):
    pass


async def test_a_run_that_is_cut_off_goes_on_behind_what_it_committed(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "BLOCK_LINES", 3)
    records = [Ride(card=1 + n % 20, atc=n // 20).pack() for n in range(10)]
    path = depot_file(tmp_path, records, day)

    def cut(done: int, _total: int) -> None:
        if done == 6:
            raise _Stop

    with pytest.raises(_Stop):
        await take(path, tell=cut)
    assert await rows(pg, "SELECT lines_done, business_date FROM received_file") == [(6, None)]
    receipt = await take(path)
    assert receipt.results == {"10": (10, 2_000)}
    assert await rows(pg, "SELECT count(*), count(DISTINCT raw) FROM purse_record") == [(10, 10)]
    assert await rows(pg, "SELECT first_line, line_count FROM received_chunk ORDER BY 1") == [
        (1, 3), (4, 3), (7, 3), (10, 1),
    ]  # fmt: skip


async def test_a_file_that_changes_while_it_is_taken_stops_the_work(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "BLOCK_LINES", 100)  # 20 kB: more than is read ahead
    path = depot_file(tmp_path, [Ride(card=1, atc=n).pack() for n in range(300)], day)
    other = depot_file(tmp_path, [Ride(card=2, atc=n).pack() for n in range(300)], day, sequence=2)

    def swap(done: int, _total: int) -> None:
        with path.open("r+b") as file:  # the same file, not one that takes its name
            file.write(other.read_bytes())

    with pytest.raises(InputRefused, match="was changed while it was being taken, behind line 101"):
        await take(path, tell=swap)
    assert await rows(pg, "SELECT count(*) FROM purse_record") == [(100,)]


async def test_two_at_once_take_each_record_once(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path
) -> None:
    records = [Ride(card=1 + n % 20, atc=n // 20).pack() for n in range(200)]
    one = depot_file(tmp_path, records, day)
    two = depot_file(tmp_path, records[::-1], day, sequence=2)
    *ones, second = await asyncio.gather(take(one), take(one), take(two), return_exceptions=True)
    first, *others = [end for end in ones if not isinstance(end, InputRefused) and not end.repeated]
    assert others == [], "one name is taken by one process"
    counts = [receipt.results.get(code, (0, 0))[0] for receipt in (first, second) for code in ("10", "03")]
    assert counts[0] + counts[2] == 200
    assert counts[1] + counts[3] == 200
    assert await rows(pg, "SELECT count(*) FROM purse_atc") == [(200,)]


async def test_the_days_answers_name_the_files_and_their_lines(
    take: Any, pg: AsyncConnection[Any], day: date, tmp_path: Path
) -> None:
    path = depot_file(tmp_path, assorted(), day)
    await take(path)
    refused = depot_file(tmp_path, assorted(), day, sequence=2)
    refused.write_bytes(refused.read_bytes()[:-5])
    await take(refused)
    stranger = depot_file(tmp_path, [Ride().pack()], day, sender="11112222")
    await take(stranger)
    await pg.execute("INSERT INTO institution VALUES (%s, 'centre', 'CENTRE')", (CENTRE,))
    terms = CloseTerms(
        OWN, CENTRE, "49993350", (0, 1), tmp_path / "out", lambda one: one.weekday() < 5, lead_s=0.05
    )
    closed = await close_day(pg, day, terms, "li wei")
    folder = tmp_path / "out" / f"{day:%Y%m%d}"
    lines = (folder / f"NS{CENTRE}{OWN}{day:%Y%m%d}001").read_text("ascii").splitlines()[1:-1]
    total = sum(int.from_bytes(raw[30:34]) for raw in assorted())
    assert [(line[9:38], int(line[38:46]), int(line[46:61]), line[61:]) for line in lines] == [
        (path.name, 10, total, "00"),
        (refused.name, 10, total, "02"),
    ]
    (line,) = (folder / f"NS{CENTRE}11112222{day:%Y%m%d}001").read_text("ascii").splitlines()[1:-1]
    assert (line[9:38], line[61:]) == (stranger.name, "04")
    lines = (folder / f"SS{CENTRE}{OWN}{day:%Y%m%d}001").read_text("ascii").splitlines()[1:-1]
    assert {line[9:38] for line in lines} == {path.name}
    assert [(int(line[38:46]), line[46:48], line[56:71], line[71:79]) for line in lines] == [
        (3, "03", "993350054110001", "33500001"),
        (4, "02", "993350054110001", "33500001"),  # unreadable, but its PSAM's bytes are there
        (5, "01", "993350054110001", "33500001"),
        (6, "04", "993350054110001", "33500001"),
        (7, "11", "993350054110001", "33500001"),
        (8, "02", "0" * 15, "0" * 8),
        (9, "02", "0" * 15, "0" * 8),
    ]
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in list(folder.iterdir()):
        file.unlink()
    await close_day(pg, day, terms, "li wei")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert not closed.was_closed


async def test_a_clearing_date_of_no_time_is_refused_as_a_name(take: Any, tmp_path: Path) -> None:
    for year in ("0001", "0999", "0000"):
        path = tmp_path / f"XF{OWN}{CENTRE}{year}0101001"
        path.write_bytes(b"H")
        with pytest.raises(InputRefused, match="clearing date is not a date"):
            await take(path)
