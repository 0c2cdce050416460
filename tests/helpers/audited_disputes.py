"""Cases in the city of `audited_city`: every action, every source, each side, and what is refused, on days that are closed and on one that is not."""

from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, Any

from switch.clearing.disputes.cases import ask, open_case
from switch.clearing.disputes.deciding import close, decide, deny
from switch.clearing.disputes.evidence import Store, add_evidence
from switch.clearing.disputes.originals import Original, find_load, find_transaction
from switch.clearing.disputes.steps import ActionRefused, Done
from switch.ledger.days import open_day
from switch.storage.pool import connect
from tests.helpers.city_hosts import BANK
from tests.helpers.disputed import asking
from tests.helpers.disputes_files import Said, dispute_file, lines_in_cm
from tests.helpers.offline import OWN

if TYPE_CHECKING:
    from tests.helpers.audited_city import City

BOUNDS = (3, 1 << 16, 1 << 20)


class Cases:
    """People at work on cases of this city."""

    def __init__(self, city: "City", connection: Any) -> None:
        self.city, self.connection = city, connection

    async def of(self, where: str) -> Original:
        """The transaction that a condition on the journal or the records finds."""
        table, _, condition = where.partition(": ")
        query = f"SELECT entry_no, business_date FROM {table} WHERE {condition} ORDER BY entry_no LIMIT 1"
        row = await (await self.connection.execute(query.encode())).fetchone()
        assert row is not None, where
        if table == "purse_load":
            return await find_load(self.connection, row[0], OWN)
        return await find_transaction(self.connection, row[1], OWN, entry_no=row[0])

    async def open(self, where: str, action: str, fen: int | None = None, **more: Any) -> int:
        """Open a case."""
        done = await open_case(self.connection, await self.of(where), asking(action, fen, **more))
        return done.case_no

    async def decide(self, case_no: int) -> Done:
        """Another person agrees."""
        return await decide(lambda: connect(self.city.url), case_no, checker="wang fang")

    async def did(self, where: str, action: str, fen: int | None = None, **more: Any) -> int:
        """Open a case and carry it out."""
        case_no = await self.open(where, action, fen, **more)
        await self.decide(case_no)
        return case_no

    async def prove(self, case_no: int, text: bytes = b"") -> None:
        """Add a text, and a file."""
        path = None
        if text:
            path = self.city.folder / f"slip-{case_no}.txt"
            path.write_bytes(text)
        store = Store(self.city.folder / "evidence", *BOUNDS)
        await add_evidence(self.connection, case_no, store, note="the slip", actor="li wei", path=path)

    async def proven(self, where: str, action: str) -> int:
        """Open a case, add evidence, and carry it out."""
        case_no = await self.open(where, action)
        await self.prove(case_no, b"seen on %d" % case_no)
        await self.decide(case_no)
        return case_no


async def second_day_of_cases(city: "City", first: date) -> dict[str, int]:
    """Cases about the first day. Returns those that go on."""
    async with await connect(city.url) as connection:
        cases = Cases(city, connection)
        day = f"business_date = '{first}'"
        bought = f"journal: {day} AND kind = 1 AND answer = '00' AND terminal_no = 2 AND amount_fen"
        charged = await cases.did(f"{bought} = 105", "04")
        again = await cases.did(f"{bought} = 106", "04", 60)
        await ask(connection, again, asking("05", 50))
        await cases.decide(again)
        asked = await cases.open(f"{bought} = 107", "03")
        await cases.prove(asked, b"a slip")
        await cases.prove(asked)
        given = await cases.open(f"{bought} = 109", "03")
        await ask(connection, given, asking("01", 9))
        await cases.decide(given)
        denied = await cases.open(f"{bought} = 110", "01")
        await deny(connection, denied, checker="wang fang", note="the slip says otherwise")
        await cases.did(f"journal: {day} AND kind = 1 AND answer = '00' AND amount_fen = 1999", "02", 999)
        await cases.did(
            f"journal: {day} AND kind = 1 AND class = 0 AND answer = '68' AND amount_fen = 14", "02"
        )
        await cases.did(
            f"journal: {day} AND kind = 1 AND class = 0 AND answer = '00' AND amount_fen = 5000 AND account_id IS NULL",
            "01",
            500,
        )
        await cases.did(
            f"purse_record: {day} AND result = '10' AND amount_fen = 200 AND atc = 0 AND terminal_no = 1",
            "01",
            150,
        )
        await cases.proven(f"purse_record: {day} AND result = '04' AND amount_fen = 270", "06")
        await cases.proven(f"purse_record: {day} AND result = '01' AND terminal_no = 1", "07")
        with suppress(ActionRefused):
            await cases.did(f"{bought} = 110", "01", 111)
        await _file_of_the_bank(city, first)
        cursor = await connection.execute(
            "SELECT case_no, state FROM dispute_case WHERE member_id = %s", (BANK,)
        )
        of_bank = {state: case_no for case_no, state in await cursor.fetchall()}
        await cases.decide(of_bank["NEW"])
        return {"charged": charged, "asked": asked, "of bank": of_bank["RETRIEVAL"]}


async def _file_of_the_bank(city: "City", first: date) -> None:
    """The bank charges one purchase back, asks for the slip of another, and sends a line that is none."""
    lines = lines_in_cm(city.folder, BANK, first)
    said = [
        Said("A1", "04", lines[3_333], 500, "20", first),
        Said("A2", "03", lines[4_321], 0, "30", first),
        Said("A3", "04", lines[3_333], -500, "20", first),
        Said("A4", "01", lines[4_321], -1, "11", first),
        Said("A5", "04", lines[3_333][:-1] + "?", 1, "20", first),
    ]
    receipt = await city.take(dispute_file(city.folder, BANK, said, date.today()))  # noqa: DTZ011  the sender's own day
    assert receipt.results == {
        "asked": (1, 500),
        "done": (1, 0),
        "97": (1, 500),
        "95": (1, 1),
        "93": (1, 1),
    }, receipt


async def third_day_of_cases(city: "City", going: dict[str, int], divided: str) -> None:
    """What goes on while the day is open."""
    async with await connect(city.url) as connection:
        cases = Cases(city, connection)
        today = await open_day(connection)
        assert today is not None
        await ask(connection, going["charged"], asking("05", 100))
        await close(connection, going["asked"], actor="li wei", note="the slip was shown")
        await deny_request_of_bank(city, connection, going["of bank"])
        await cases.did(f"journal: rrn = '{divided}' AND class = 0", "04", 101)
        charged = await connection.execute("SELECT max(case_no) FROM dispute_case")
        row = await charged.fetchone()
        assert row is not None
        await ask(connection, row[0], asking("05", 50))
        await cases.decide(row[0])
        await cases.did("foreign_verdict: result = '00' AND amount_fen = 200", "04", 80)
        await cases.did("purse_load: state = 4", "08", outcome="returned")
        await cases.open("purse_record: result = '10' AND amount_fen = 300", "01", 1)


async def deny_request_of_bank(city: "City", connection: Any, case_no: int) -> None:
    """The bank goes on from its retrieval to a chargeback, and a checker says no."""
    row = await (
        await connection.execute("SELECT item_date FROM dispute_case WHERE case_no = %s", (case_no,))
    ).fetchone()
    said = [Said("A2", "04", lines_in_cm(city.folder, BANK, row[0])[4_321], 21, "31", row[0])]
    receipt = await city.take(dispute_file(city.folder, BANK, said, date.today(), 2))  # noqa: DTZ011
    assert receipt.results == {"asked": (1, 21)}, receipt
    await deny(connection, case_no, checker="wang fang", note="the slip came")
