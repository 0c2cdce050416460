"""ER files: what a bank asks for is taken once, answered once, and the day's own files say the same however often they are written."""

from datetime import date
from pathlib import Path
from typing import Any, Self

import pytest

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.disputes import incoming
from switch.clearing.disputes.cases import open_case
from switch.clearing.disputes.deciding import decide, deny
from switch.clearing.disputes.incoming import decide_for_members, dispute_kind
from switch.clearing.disputes.originals import find_transaction
from switch.clearing.disputes.states import State
from switch.clearing.received import Receipt, Terms, take_file
from switch.ledger.days import open_day as open_day_of
from switch.storage.pool import connect
from tests.helpers.days import make_days
from tests.helpers.disputed import BANK, OWN, Disputes, asking
from tests.helpers.disputes_files import CENTRE, Said, details, dispute_file, lines_in_cm

pytestmark = pytest.mark.server

TERMS = Terms(OWN, CENTRE, 1, "li wei")


class Bank:
    """A bank that sends ER files to this town, and a town that closes days."""

    def __init__(self, town: Disputes, folder: Path) -> None:
        self.town, self.folder, self.sequence = town, folder, 0
        self.first: date = town.day
        self.lines: dict[int, str] = {}

    async def begin(self, *amounts: int) -> Self:
        """A first day with purchases of these amounts, closed."""
        pg = self.town.pg
        await pg.execute("INSERT INTO institution VALUES (%s, 'bank', 'BANK')", (BANK,))
        await pg.execute(
            "INSERT INTO fee_rule (account_kind, rate_ppm, minimum_fen, valid_from) VALUES (20, 10000, 0, '2020-01-01')"
        )
        await make_days(pg, 3)
        for fen in amounts:
            await self.town.bank_buy(fen)
        await self.close()
        self.lines = lines_in_cm(self.folder, BANK, self.first)
        return self

    async def today(self) -> date:
        day = await open_day_of(self.town.pg)
        assert day is not None
        return day.day

    async def close(self, day: date | None = None) -> Path:
        """Close a day; where its files are."""
        day = day or await self.today()
        terms = CloseTerms(
            OWN, CENTRE, "49993350", (0,), self.folder, lambda one: one.weekday() < 5, lead_s=0.02
        )
        async with await connect(self.town.url) as connection:
            await close_day(connection, day, terms, "li wei")
        return self.folder / f"{day:%Y%m%d}"

    def said(self, case: str, action: str, fen: int, amount: int, reason: str = "20", **more: Any) -> Said:
        return Said(
            case, action, more.get("line", self.lines[fen]), amount, reason, more.get("day", self.first)
        )

    async def send(self, *said: Said, path: Path | None = None) -> Receipt:
        """Send an ER."""
        if path is None:
            self.sequence += 1
            path = dispute_file(self.folder, BANK, said, self.first, self.sequence)
        async with await connect(self.town.url) as connection:
            return await take_file(
                connection, path, TERMS, lambda name: dispute_kind(connection, name, TERMS)
            )

    async def told(self, day: date | None = None) -> list[tuple[str, str, int, str]]:
        """What the ER of a day says: case number, action, amount, reason. The line is the bank's own."""
        day = day or await self.today()
        folder = await self.close(day)
        lines = details(folder / f"ER{CENTRE}{BANK}{day:%Y%m%d}001")
        assert all(line[27:326] in self.lines.values() for line in lines)
        assert {line[344:] for line in lines} == {f"{self.first:%Y%m%d}"}
        return [
            (
                line[9:25].strip(),
                line[25:27],
                int(line[327:342]) * (1 if line[326] == "C" else -1),
                line[342:344],
            )
            for line in lines
        ]


@pytest.fixture
async def bank(town: Disputes, tmp_path: Path) -> Bank:
    return Bank(town, tmp_path)


async def test_a_chargeback_of_a_bank_waits_is_decided_and_both_days_files_tell_it(bank: Bank) -> None:
    town = bank.town
    await bank.begin(1_000, 700)
    receipt = await bank.send(bank.said("A1", "04", 1_000, 300), bank.said("A2", "03", 700, 0, "30"))
    assert receipt.results == {"asked": (1, 300), "done": (1, 0)}
    assert await town.merchant() == 1_700 - 17, "nothing has moved but the fees"
    again = await bank.send(path=bank.folder / receipt.file)
    assert again.repeated
    assert again.results == receipt.results
    done = await town.decide(1)
    assert done.state == State.CHARGED_BACK
    assert await town.rows(
        f"SELECT debit_code, credit_code, credit_owner, amount_fen FROM posting WHERE entry_no = {done.entry_no}"
    ) == [(2101, 1101, int(BANK), 300)]
    second = await bank.today()
    assert await bank.told() == [("A2", "03", 0, "30"), ("A1", "04", 300, "20")]
    folder = bank.folder / f"{second:%Y%m%d}"
    (line,) = details(folder / f"CM{CENTRE}{BANK}{second:%Y%m%d}001")
    own = next(one for fen, one in bank.lines.items() if fen == 1_000)
    assert (line[102:106], line[107:113], line[144:156]) == ("0220", "202000", own[143:155])
    assert line[179:185] == own[24:30], "the original's trace"
    assert line[193:205] == "D00000000002", "its share of the fee, which goes back: 7 of 10 parts of 3"
    nets = {one[9:17]: one[-16:] for one in details(folder / f"NP{CENTRE}{BANK}{second:%Y%m%d}001")}
    assert nets[BANK] == "C000000000000298"
    (paid,) = details(folder / f"MR{CENTRE}00000001{second:%Y%m%d}001")
    assert (paid[78:94], paid[94:110]) == ("D000000000000300", "C000000000000003")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in list(folder.iterdir()):
        path.unlink()
    await bank.close(second)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert (await bank.send(bank.said("A2", "04", 700, 700, "31"))).results == {"asked": (1, 700)}
    await deny(town.pg, 2, checker="wang fang", note="the slip came")
    assert await bank.told() == [("A2", "04", 0, "98")]


async def test_every_line_that_may_not_be_is_refused_by_its_rule_and_answered(bank: Bank) -> None:
    await bank.begin(1_000, 700)
    mine = bank.lines[1_000]
    receipt = await bank.send(
        bank.said("B1", "04", 1_000, 1_001),
        bank.said("B2", "04", 1_000, -5),
        bank.said("B3", "09", 1_000, 5),
        bank.said("B4", "06", 1_000, 5, "60"),
        bank.said("B5", "01", 1_000, -5, "11"),
        bank.said("B6", "04", 1_000, 5, "50"),
        bank.said("", "04", 1_000, 5),
        bank.said("B7", "05", 1_000, -5, "50"),
        bank.said("B8", "04", 1_000, 5, line=mine[:-1] + "x"),
        bank.said("B9", "04", 1_000, 5, line="x" * 299),
        bank.said("BA", "04", 1_000, 5, day=date(2020, 1, 1)),
        bank.said("BB", "04", 1_000, 5),
        bank.said("BC", "04", 1_000, 5),
        bank.said("BB", "04", 700, 5),
        bank.said("BB", "04", 1_000, 5),
    )
    rows = await bank.town.rows("SELECT member_case, refusal FROM dispute_received ORDER BY line_no")
    assert rows == [
        ("B1", "94"), ("B2", "97"), ("B3", "97"), ("B4", "95"), ("B5", "95"), ("B6", "97"), ("", "97"), ("B7", "95"), ("B8", "93"),
        ("B9", "93"), ("BA", "93"), ("BB", ""), ("BC", "96"), ("BB", "93"), ("BB", "92"),
    ]  # fmt: skip
    assert receipt.results["asked"] == (1, 5)
    assert await bank.town.rows("SELECT count(*) FROM dispute_case") == [(1,)]
    day = await bank.today()
    folder = await bank.close(day)
    said = details(folder / f"ER{CENTRE}{BANK}{day:%Y%m%d}001")
    assert [(line[9:25].strip(), line[326:342], line[342:344]) for line in said] == [
        (case, "C000000000000000", refusal) for case, refusal in rows if refusal
    ]
    assert said[9][27:326] == "x" * 299, "its own words"


async def test_bytes_that_no_printer_shows_refuse_the_file(bank: Bank) -> None:
    await bank.begin(1_000)
    for hostile in ("A\x00", "A\x1b[2J", "A\x7f"):
        receipt = await bank.send(bank.said(hostile, "04", 1_000, 5))
        assert receipt.status == "02", receipt
    assert await bank.town.rows("SELECT count(*) FROM dispute_received") == [(0,)]


async def test_a_run_that_is_stopped_goes_on_and_takes_each_line_once(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bank.begin(*range(101, 108))
    monkeypatch.setattr(incoming, "LINES_AT_ONCE", 2)
    said = [bank.said(f"C{fen}", "04", fen, 1) for fen in range(101, 108)]
    path = dispute_file(bank.folder, BANK, said, bank.first, 1)

    def stop(done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    async with await connect(bank.town.url) as connection:
        with pytest.raises(KeyboardInterrupt):
            await take_file(connection, path, TERMS, lambda name: dispute_kind(connection, name, TERMS), stop)
    assert await bank.town.rows("SELECT count(*) FROM dispute_case") == [(4,)]
    assert (await bank.send(path=path)).results == {"asked": (7, 7)}
    assert await bank.town.rows("SELECT count(*), count(DISTINCT original_entry) FROM dispute_case") == [
        (7, 7)
    ]


async def test_a_setting_decides_for_members_what_the_books_allow(bank: Bank) -> None:
    town = bank.town
    await bank.begin(1_000, 700, 600)
    original = await town.rows(
        "SELECT entry_no FROM journal WHERE kind = 1 AND class = 0 AND amount_fen = 700"
    )
    await town.pg.execute(
        "INSERT INTO original_use VALUES (0, %s, %s, 700, 500, NULL)", (original[0][0], bank.first)
    )
    await bank.send(
        bank.said("D1", "04", 1_000, 400), bank.said("D2", "04", 700, 201), bank.said("D3", "04", 600, 600)
    )
    await deny(town.pg, 3, checker="wang fang", note="people were first")
    by_people = asking("01")
    assert by_people.member_id is None
    assert await decide_for_members(lambda: connect(town.url)) == {"done": 1, "denied": 1, "waiting": 0}
    assert await decide_for_members(lambda: connect(town.url)) == {"done": 0, "denied": 0, "waiting": 0}
    assert await town.rows("SELECT state, asked_by FROM dispute_case ORDER BY case_no") == [
        ("CHARGED_BACK", None), ("DENIED", None), ("DENIED", None),
    ]  # fmt: skip
    assert sorted(await bank.told()) == [
        ("D1", "04", 400, "20"),
        ("D2", "04", 0, "94"),
        ("D3", "04", 0, "98"),
    ]


async def test_a_purchase_of_unknown_end_is_collected_from_its_bank(bank: Bank) -> None:
    town = bank.town
    unknown = await town.bank_buy(800, code="")
    assert unknown[1].answer == "68"
    await bank.begin(1_000)
    bank.town.day = bank.first
    opened = await town.open(unknown, asking("02", 750))
    done = await decide(lambda: connect(town.url), opened.case_no, checker="wang fang")
    assert done.state == State.COLLECTED
    assert await town.rows(
        f"SELECT debit_code, debit_owner, credit_code, amount_fen FROM posting WHERE entry_no = {done.entry_no}"
    ) == [(1101, int(BANK), 2101, 750)]
    assert await town.use() == [(50, False)]
    day = await bank.today()
    (line,) = details(await bank.close(day) / f"ER{CENTRE}{BANK}{day:%Y%m%d}001")
    (own,) = details(bank.folder / f"{day:%Y%m%d}" / f"CM{CENTRE}{BANK}{day:%Y%m%d}001")
    assert (line[25:27], line[27:326], line[326:342]) == ("02", own[1:], "D000000000000750")


async def test_a_merchant_that_has_changed_its_acquirer_keeps_no_day_open(
    town: Disputes, tmp_path: Path
) -> None:
    bank = await Bank(town, tmp_path).begin(1_000)
    await town.pg.execute("INSERT INTO institution VALUES ('01030000', 'another', 'BANK')")
    await town.pg.execute("UPDATE merchant SET acquirer_id = '01030000'")
    ((rrn,),) = await town.rows(
        f"SELECT rrn FROM journal WHERE effect_fen <> 0 AND business_date = '{bank.first}'"
    )
    original = await find_transaction(town.pg, bank.first, OWN, rrn=rrn)
    assert original.acquirer_id == OWN
    opened = await open_case(town.pg, original, asking("04", 300))
    await town.decide(opened.case_no)
    folder = await bank.close()
    assert [path.name[10:18] for path in folder.glob("ER*[0-9]")] == [BANK]
