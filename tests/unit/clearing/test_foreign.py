"""Other cities' cards: forwarded, answered once, accepted when nobody answers, and what the rides of a day come to."""

from collections.abc import Callable
from datetime import date, time
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.depot_files import depot_kind
from switch.clearing.foreign import Deadline, answer_kind
from switch.clearing.received import Receipt, Terms, take_file
from switch.domain.errors import InputRefused
from switch.keys.software_vault import SoftwareVault
from switch.ledger.days import open_day
from switch.purse.intake import inline_tacs
from switch.storage.pool import connect
from terminal_sim.records import Phase
from tests.helpers.depots import CENTRE, OWN, answer_file, depot_file
from tests.helpers.offline import CITY, FOREIGN_ISSUER, Ride, build

pytestmark = pytest.mark.server

INTEROP = "99999999"
TERMS = Terms(OWN, CENTRE, 2, "li wei", INTEROP)
NEVER, AT_ONCE = Deadline(days=30), Deadline(days=-2, by=time(0))


class Town:
    """A town that takes files and closes days."""

    def __init__(self, url: str, pg: AsyncConnection[Any], vault: SoftwareVault, folder: Path) -> None:
        self.url, self.pg, self.vault, self.folder = url, pg, vault, folder

    async def take(self, path: Path) -> Receipt:
        async with await connect(self.url) as connection:
            digest_all = inline_tacs(self.vault)
            return await take_file(
                connection,
                path,
                TERMS,
                lambda name: (
                    answer_kind(connection, TERMS)
                    if name.kind == "DT"
                    else depot_kind(connection, name, TERMS, digest_all)
                ),
            )

    async def today(self) -> date:
        row = await open_day(self.pg)
        assert row is not None
        return row.day

    async def close(self, deadline: Deadline = NEVER, day: date | None = None) -> Path:
        day = day or await self.today()
        terms = CloseTerms(
            OWN, CENTRE, "49993350", (0, 1), self.folder / "out", lambda one: one.weekday() < 5,
            lead_s=0.05, interop_centre=INTEROP, deadline=deadline,
        )  # fmt: skip
        await close_day(self.pg, day, terms, "li wei")
        return self.folder / "out" / f"{day:%Y%m%d}"

    async def rows(self, query: str) -> list[Any]:
        return await (await self.pg.execute(query.encode())).fetchall()


@pytest.fixture
async def town(postgres_url: str, pg: AsyncConnection[Any], tac_vault: SoftwareVault, tmp_path: Path) -> Town:
    await build(postgres_url)
    return Town(postgres_url, pg, tac_vault, tmp_path)


def foreign(card: int, **more: Any) -> bytes:
    return Ride(card=card, issuer=FOREIGN_ISSUER, **more).pack()


def details(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text("ascii").splitlines()[1:-1]


async def test_records_of_other_cities_cards_go_out_and_come_back_paid_or_refused(
    town: Town, tmp_path: Path
) -> None:
    first = await town.today()
    cards = [foreign(n, amount_fen=100 * n) for n in (1, 2, 3)]
    await town.take(depot_file(tmp_path, [Ride(card=9).pack(), *cards, foreign(4, terminal_no=8)], first))
    folder = await town.close()
    sent = details(folder, f"FH{OWN}{INTEROP}{first:%Y%m%d}001")
    assert sent == [f"D{n:08d}{raw.hex().upper()}" for n, raw in enumerate(cards, 1)]
    second = await town.today()
    receipt = await town.take(
        answer_file(
            tmp_path,
            [(cards[0], "10"), (cards[1], "01"), (cards[0], "02"), (foreign(8), "10")],
            first,
            sender=INTEROP,
        )
    )
    assert receipt.results == {"00": (1, 100), "01": (1, 200), "late": (1, 100), "unknown": (1, 200)}
    assert await town.rows(
        "SELECT debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM posting"
        f" WHERE business_date = '{second}'"
    ) == [(1102, int(CITY), 2101, 1, 100)]
    late = answer_file(tmp_path, [(cards[1], "10")], first, sequence=2, sender=INTEROP)
    assert (await town.take(late)).results == {"late": (1, 200)}
    folder = await town.close()
    listed = details(folder, f"SS{CENTRE}{OWN}{second:%Y%m%d}001")
    assert [(line[9:38], int(line[38:46]), line[46:48]) for line in listed] == [
        (f"XF{OWN}{CENTRE}{first:%Y%m%d}001", 2, "00"),
        (f"XF{OWN}{CENTRE}{first:%Y%m%d}001", 3, "01"),
    ]
    nets = {line[9:17]: line[-16:] for line in details(folder, f"NP{CENTRE}{CITY}{second:%Y%m%d}001")}
    assert nets == {CITY: "D000000000000100", OWN: "C000000000000100"}
    (paid,) = details(folder, f"MR{CENTRE}00000001{second:%Y%m%d}001")
    assert (paid[56:58], paid[78:94]) == ("50", "C000000000000100")


async def test_without_an_answer_in_time_the_city_pays_and_a_second_close_writes_the_same(
    town: Town, tmp_path: Path
) -> None:
    first = await town.today()
    await town.take(depot_file(tmp_path, [foreign(1), foreign(2, amount_fen=0)], first))
    await town.close()
    second = await town.today()
    folder = await town.close(AT_ONCE)
    assert await town.rows("SELECT result, answered_on, business_date FROM foreign_verdict") == [
        ("00", None, second), ("00", None, second),
    ]  # fmt: skip
    assert await town.rows("SELECT count(*), sum(amount_fen) FROM posting WHERE debit_code = 1102") == [
        (1, 200)
    ]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in list(folder.iterdir()):
        path.unlink()
    await town.close(AT_ONCE, second)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    answer = answer_file(tmp_path, [(foreign(1), "10")], first, sender=INTEROP)
    assert (await town.take(answer)).results == {"unknown": (1, 200)}, "another record of the card"


async def test_what_its_city_holds_as_grey_is_not_accepted_by_silence(town: Town, tmp_path: Path) -> None:
    first = await town.today()
    held, silent = foreign(1), foreign(2)
    await town.take(depot_file(tmp_path, [held, silent], first))
    await town.close()
    for sequence, (code, became) in enumerate([("04", "04"), ("04", "late")], 1):
        path = answer_file(tmp_path, [(held, code)], first, sequence=sequence, sender=INTEROP)
        assert (await town.take(path)).results == {became: (1, 200)}
    await town.close(AT_ONCE)
    assert await town.rows("SELECT merchant_no, result FROM foreign_verdict") == [(1, "00")]
    last = answer_file(tmp_path, [(held, "94"), (silent, "01")], first, sequence=3, sender=INTEROP)
    assert (await town.take(last)).results == {"94": (1, 200), "late": (1, 200)}


async def test_what_another_citys_own_merchants_brought_is_never_paid_by_us(
    town: Town, tmp_path: Path
) -> None:
    first = await town.today()
    ours, theirs = foreign(1), foreign(2, terminal_no=8, acquirer=CITY)
    await town.take(depot_file(tmp_path, [ours], first))
    await town.take(depot_file(tmp_path, [theirs], first, sender=CITY))
    folder = await town.close()
    assert len(details(folder, f"FH{OWN}{INTEROP}{first:%Y%m%d}001")) == 1, "theirs was not forwarded"
    answer = answer_file(tmp_path, [(theirs, "10")], first, sender=INTEROP)
    assert (await town.take(answer)).results == {"unknown": (1, 200)}
    await town.close(AT_ONCE)
    assert await town.rows("SELECT merchant_no, result FROM foreign_verdict") == [(1, "00")]
    assert await town.rows("SELECT debit_code, credit_owner FROM posting WHERE debit_code = 1102") == [
        (1102, 1)
    ]


async def test_what_nobody_could_answer_yet_waits(town: Town, tmp_path: Path) -> None:
    first = await town.today()
    record = foreign(1)
    await town.take(depot_file(tmp_path, [record], first))
    answer = answer_file(tmp_path, [(record, "10")], first, sender=INTEROP)
    assert (await town.take(answer)).results == {"unknown": (1, 200)}, "it was not forwarded yet"
    await town.close(AT_ONCE)
    assert await town.rows("SELECT verdict FROM purse_waiting") == [(None,)]


async def test_answers_that_end_nothing_or_come_from_others_are_refused(town: Town, tmp_path: Path) -> None:
    day = await town.today()
    made: Callable[..., Path] = answer_file
    waiting = await town.take(made(tmp_path, [(foreign(1), "10"), (foreign(2), "11")], day, sender=INTEROP))
    assert (waiting.status, waiting.reason) == ("02", "line 3, column 202: result: one that ends a matter")
    path = made(tmp_path, [(foreign(1), "10")], day, sequence=2, sender=INTEROP)
    path.write_bytes(path.read_bytes().replace(f"10{day:%Y%m%d}".encode(), b"1020261301"))
    assert (await town.take(path)).reason == "line 2, column 204: result_date: not a date"
    assert (await town.take(made(tmp_path, [], day, sequence=3, sender=CITY))).status == "04"
    with pytest.raises(InputRefused, match="not set"):
        answer_kind(town.pg, TERMS._replace(interop_centre=""))


async def test_the_rides_of_a_day_by_line_and_date_of_the_ride(town: Town, tmp_path: Path) -> None:
    day = await town.today()
    at = {"line": "0003", "station": "0101"}
    out = {"line": "0003", "station": "0107", "entry_station": "0101"}
    records = [
        Ride(card=1, atc=0, amount_fen=0, phase=Phase.ENTRY, **at).pack(),
        Ride(card=1, atc=1, amount_fen=250, full_fare_fen=400, transfer=True, phase=Phase.EXIT, **out).pack(),
        Ride(card=2, atc=0, amount_fen=0, phase=Phase.ENTRY, **at).pack(),
        Ride(card=3, atc=0, amount_fen=900, phase=Phase.SUPPLEMENT, **out).pack(),
        Ride(card=4, atc=0, amount_fen=120, full_fare_fen=200, line="0003").pack(),
        Ride(card=5, atc=0, amount_fen=200, full_fare_fen=0, line="0007").pack(),  # a full fare that cannot be
        foreign(6, line="0007"),
    ]  # fmt: skip
    await town.take(depot_file(tmp_path, records, day))
    folder = await town.close()
    lines = details(folder, f"TR{CENTRE}00000001{day:%Y%m%d}001")
    assert [line[32:38] for line in lines] == ["020003", "020007"]
    metro, bus = ([int(line[at : at + 8]) for at in range(38, 86, 8)] for line in lines)
    assert metro == [1, 1, 1, 2, 1, 1], "single, complete, incomplete, entries, open, transfers"
    assert bus == [1, 0, 0, 0, 0, 0], "what another city has not confirmed is no ride yet"
    sums = [[int(line[at : at + 15]) for at in range(86, 161, 15)] for line in lines]
    assert sums == [[1_270, 900, 1_500, 150, 80], [200, 0, 200, 0, 0]]
    # The exit comes a day late: it is a ride of its own day, and what was closed stays.
    before = (folder / f"TR{CENTRE}00000001{day:%Y%m%d}001").read_bytes()
    exit_ = Ride(card=2, atc=1, amount_fen=300, phase=Phase.EXIT, **out).pack()
    second = await town.today()
    await town.take(depot_file(tmp_path, [exit_], second))
    assert await town.rows("SELECT count(*) FROM trip WHERE state = 'OPEN'") == [(1,)]
    later = await town.close()
    (line,) = details(later, f"TR{CENTRE}00000001{second:%Y%m%d}001")
    assert line[38:70] == "00000000" + "00000001" + "00000000" * 2
    assert await town.rows("SELECT state, business_date FROM trip WHERE entry_atc = 0 AND end_atc = 1 AND amount_fen = 300") == [
        ("COMPLETE", second)
    ]  # fmt: skip
    await town.close(day=day)
    assert (folder / f"TR{CENTRE}00000001{day:%Y%m%d}001").read_bytes() == before
