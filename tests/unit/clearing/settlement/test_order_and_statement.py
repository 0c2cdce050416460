"""Money leaves once, by two people, to the account that was approved; and what the bank says of it is believed once."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sepaxml
import xmlschema

from switch.clearing.reconcile.run import Partner, compare
from switch.clearing.reconcile.take import TakeTerms, take_partner_file
from switch.clearing.settlement.camt import StatementRefused
from switch.clearing.settlement.payouts import Awaited, approve, resolve, show_payout
from switch.clearing.settlement.turn import SettlementRefused
from switch.domain.errors import InputRefused
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from terminal_sim.custody_bank import CustodyBank, Fate, OrderRefused
from terminal_sim.host.day_file import Item, write_file
from tests.helpers.clearing_day import CENTRE
from tests.helpers.settling import BUSES, CUSTODY, GROCER, HOSPITAL, MERCHANTS, NOODLES, OTHER, OWN, Settling

pytestmark = pytest.mark.server

NOW = datetime(2024, 3, 18, 9, 0, tzinfo=UTC)


async def states(city: Settling) -> dict[str, str]:
    """Of payouts and collections, by party; the newest."""
    return dict(await city.rows("SELECT party, state FROM payout ORDER BY settlement_date"))


async def numbers(city: Settling) -> dict[str, str]:
    """Of payouts and collections, by party; the newest."""
    return dict(await city.rows("SELECT party, payout_id FROM payout ORDER BY settlement_date"))


async def balance(city: Settling, code: int) -> int:
    """Debits less credits of a code, by the postings."""
    return await city.one(
        "SELECT coalesce(sum(CASE WHEN debit_code = %s THEN amount_fen ELSE 0 END"
        " - CASE WHEN credit_code = %s THEN amount_fen ELSE 0 END), 0)::bigint FROM posting",
        code,
        code,
    )


async def outcomes(city: Settling) -> dict[str, int]:
    """Of the newest statement: how many of each."""
    return dict(
        await city.rows(
            "SELECT outcome, count(*) FROM bank_entry"
            " WHERE statement_no = (SELECT max(statement_no) FROM bank_statement) GROUP BY 1"
        )
    )


def order_file(city: Settling, day: date, number: int = 1) -> Path:
    """The file of an order."""
    return city.folder / "settlement" / f"{day:%Y%m%d}" / f"O{day:%Y%m%d}{number:03d}.xml"


@pytest.fixture
async def traded(city: Settling) -> Settling:
    """One closed day of trade."""
    await city.trade()
    await city.close()
    return city


class Bank(CustodyBank):
    """Tells the city what it did."""

    async def tell(self, city: Settling, *, final: bool = True) -> dict[str, int]:
        """By a statement, or a notification; what became of its entries."""
        await city.take(self.paper(city, final=final))
        return await outcomes(city)

    def paper(self, city: Settling, *, final: bool = True) -> Path:
        """The paper as a file."""
        path = city.folder / f"paper-{self.papers}.xml"
        path.write_bytes(self.statement(NOW) if final else self.notification(NOW))
        return path


async def ordered(city: Settling, **fates: Fate) -> tuple[date, Bank]:
    """A settlement date whose order the bank has, with what it does to whom."""
    day = await city.settle()
    ids = await numbers(city)
    bank = Bank(CUSTODY, 10**9)
    parties = {"grocer": GROCER, "buses": BUSES, "noodles": NOODLES, "hospital": HOSPITAL, "other": OTHER}
    bank.order(order_file(city, day).read_bytes(), {ids[parties[name]]: fate for name, fate in fates.items()})
    return day, bank


async def test_an_order_is_what_the_official_schema_says_and_what_the_books_say(traded: Settling) -> None:
    day = (await traded.prepare()).settlement_date
    with pytest.raises(InputRefused, match="another person"):
        await approve(traded.pg, day, None, actor="Li Wei")
    assert len(await traded.approve(day)) == 5
    assert await traded.approve(day) == []
    done = await traded.order(day)
    path = order_file(traded, day)
    assert (done.payout_count, done.left, done.written) == (5, (), (path.name,))
    schemas = Path(sepaxml.__file__).parent / "schemas"
    xmlschema.XMLSchema(str(schemas / "pain.001.001.09.xsd")).validate(str(path))
    bank = CustodyBank(CUSTODY)
    paid = bank.order(path.read_bytes())
    assert sum(payment.fen for payment in paid) == done.total_fen == -(await balance(traded, 1001))
    assert {payment.account for payment in paid} == {
        f"6222{int(party):015d}"[-19:] for party in (*MERCHANTS, OTHER)
    }
    assert paid[0].name.endswith("& sons")
    assert await traded.rows("SELECT DISTINCT actor, checker FROM booking WHERE source LIKE 'payout %%'") == [
        ("li wei", "wang fang")
    ]
    with pytest.raises(OrderRefused, match="taken before"):
        bank.order(path.read_bytes())
    before = path.read_bytes()
    for name in (path.name, f"{path.name}.ok"):
        path.with_name(name).unlink()
    again = await traded.order(day)
    assert (again.order_id, again.payout_count, again.written) == ("", 0, (path.name,))
    assert path.read_bytes() == before
    assert path.with_name(f"{path.name}.ok").exists()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.ok"]


async def test_what_is_not_approved_or_taken_back_by_refunds_goes_into_a_further_order(
    traded: Settling,
) -> None:
    day = (await traded.prepare()).settlement_date
    ids = await numbers(traded)
    with pytest.raises(SettlementRefused, match="no such payout"):
        await traded.approve(day, ["P20240101000001"])
    await traded.approve(day, [ids[GROCER]])
    fen = await traded.one("SELECT amount_fen FROM payout WHERE party = %s", GROCER)
    await traded.pay(Booking(Event.CHARGEBACK_BANK, fen, 1, int(OTHER), "case 1"))
    done = await traded.order(day)
    assert [(left.party, left.why) for left in done.left] == [(GROCER, "BALANCE")]
    await traded.pay(Booking(Event.BANK_PURCHASE, fen, int(OTHER), 1, "case 2"))
    assert (await traded.order(day)).payout_count == 1
    await traded.approve(day)
    assert (await traded.order(day)).payout_count == 4
    assert order_file(traded, day, 2).exists()
    assert await traded.rows("SELECT count(*), count(DISTINCT order_id) FROM payout") == [(5, 2)]


async def test_an_account_that_changed_must_be_approved_again(traded: Settling) -> None:
    day = (await traded.prepare()).settlement_date
    await traded.approve(day)
    other = await traded.account(GROCER, "6222999999999999999")
    done = await traded.order(day)
    assert [(left.party, left.why) for left in done.left] == [(GROCER, "ACCOUNT")]
    assert (await states(traded))[GROCER] == "PREPARED"
    assert (await traded.order(day)).payout_count == 0
    await traded.approve(day)
    assert (await traded.order(day)).payout_count == 1
    assert "6222999999999999999" in order_file(traded, day, 2).read_text()
    assert await traded.one("SELECT account_no FROM payout WHERE party = %s", GROCER) == other


async def test_without_our_account_nothing_is_ordered(traded: Settling) -> None:
    day = (await traded.prepare()).settlement_date
    await traded.approve(day)
    await traded.pg.execute("ALTER TABLE payout_account DISABLE TRIGGER kept")
    await traded.pg.execute("UPDATE payout_account SET party = '12345678' WHERE party = %s", (OWN,))
    with pytest.raises(SettlementRefused, match="no confirmed account"):
        await traded.order(day)
    await traded.pg.execute("UPDATE payout_account SET party = %s WHERE party = '12345678'", (OWN,))
    assert set((await states(traded)).values()) == {"APPROVED"}


async def test_money_waits_for_a_partners_comparison_without_open_differences_unless_overridden(
    traded: Settling, tmp_path: Path
) -> None:
    made = await traded.prepare()
    day, last = made.settlement_date, made.last_day
    await traded.approve(day)
    traded.awaited = (Awaited(OTHER, last),)

    async def compared(items: list[Item], sequence: int) -> None:
        path = write_file(tmp_path, OTHER, CENTRE, last, items, sequence=sequence)
        receipt = await take_partner_file(traded.pg, path, TakeTerms(frozenset({OTHER}), CENTRE, "sun lei"))
        assert receipt.status == "00", receipt.reason
        await compare(traded.pg, Partner(OTHER, 0, 0), last, "sun lei")

    refused = f"{last} is not compared with {OTHER}"
    with pytest.raises(SettlementRefused, match=refused):
        await traded.order(day)
    await compared([Item("0200", f"{last:%m%d}120000", 7, "6228480000000000007", 100, "R00000000007")], 1)
    with pytest.raises(SettlementRefused, match=refused):
        await traded.order(day)
    await compared([], 2)  # they take it back
    traded.awaited += (Awaited("01020000", last + timedelta(days=1)),)  # owes nothing of that date
    assert (await traded.order(day)).payout_count > 0
    assert await traded.one("SELECT override FROM settlement_order") == ""


async def test_why_money_was_released_before_the_comparison_is_kept_with_its_order(traded: Settling) -> None:
    made = await traded.prepare()
    await traded.approve(made.settlement_date)
    traded.awaited = (Awaited(OTHER, made.last_day),)
    await traded.order(made.settlement_date, override="the bank's file comes at noon")
    assert await traded.one("SELECT override FROM settlement_order") == "the bank's file comes at noon"


async def test_a_statement_says_what_was_paid_and_what_came_back_and_is_taken_once(traded: Settling) -> None:
    day, bank = await ordered(traded, grocer=Fate.RETURNED, buses=Fate.SILENT)
    paper = bank.paper(traded)
    (taken,) = await traded.take(paper)
    assert {outcome: count for outcome, (count, _, _) in taken.counts.items()} == {"PAID": 4, "RETURNED": 1}
    assert await states(traded) == {
        GROCER: "RETURNED",
        BUSES: "ORDERED",
        NOODLES: "PAID",
        HOSPITAL: "PAID",
        OTHER: "PAID",
    }
    assert await balance(traded, 2201) == 0
    rows = (
        await traded.rows("SELECT * FROM booking ORDER BY 1"),
        await traded.rows("SELECT * FROM payout_move ORDER BY 1, 2"),
    )
    (again,) = await traded.take(paper)
    assert again == taken._replace(again=True)
    assert rows == (
        await traded.rows("SELECT * FROM booking ORDER BY 1"),
        await traded.rows("SELECT * FROM payout_move ORDER BY 1, 2"),
    )
    text = paper.read_text()
    paper.write_text(text.replace("BOOK", "BOOK", 1).replace("AC04", "AC01"))
    with pytest.raises(StatementRefused, match="its file was another"):
        await traded.take(paper)
    # What came back is due again with the day on which it came.
    fen = await traded.one("SELECT amount_fen FROM payout WHERE party = %s", GROCER)
    await traded.close()
    await traded.settle()
    line = "SELECT carried_in_fen, net_fen, returned_fen, payout_fen FROM settlement_line WHERE settlement_date > %s"
    assert await traded.rows(line, day) == [(0, 0, fen, fen)]
    shown = await show_payout(traded.pg, (await numbers(traded))[GROCER])
    assert shown["state"] == "ORDERED"


async def test_a_notification_and_then_the_statement_move_money_once(traded: Settling) -> None:
    _, bank = await ordered(
        traded, grocer=Fate.RETURNED, buses=Fate.TWICE, noodles=Fate.LESS, hospital=Fate.MORE
    )
    bank.move("", 777, "a stranger")
    assert await bank.tell(traded, final=False) == {"PAID": 3, "RETURNED": 1, "WAITS": 4}
    assert await balance(traded, 2201) == 0
    assert await bank.tell(traded) == {"SEEN": 4, "TWICE": 1, "AMOUNT": 2, "UNEXPLAINED": 1}
    fen = await traded.one("SELECT amount_fen FROM payout WHERE party = %s", BUSES)
    assert await balance(traded, 2201) == fen - 1 + 1 - 777
    grocer = await traded.one("SELECT amount_fen FROM payout WHERE party = %s", GROCER)
    # By the books the bank holds what it does hold.
    assert await balance(traded, 1001) == bank.balance_fen - 10**9
    assert grocer > 0
    noodles = (await numbers(traded))[NOODLES]
    two = {"actor": "li wei", "checker": "wang fang", "reason": "a fen is missing"}
    with pytest.raises(SettlementRefused, match="has moved money"):
        await resolve(traded.pg, noodles, "REJECTED", **two)
    await resolve(traded.pg, noodles, "PAID", **two)
    await resolve(traded.pg, noodles, "PAID", **two)
    assert (await states(traded))[NOODLES] == "PAID"


async def test_without_references_of_the_bank_the_other_paper_repeats_it_once(traded: Settling) -> None:
    day = await traded.settle()
    bank = Bank(CUSTODY, 0, with_refs=False)
    bank.order(order_file(traded, day).read_bytes(), {(await numbers(traded))[GROCER]: Fate.RETURNED})
    assert await bank.tell(traded, final=False) == {"PAID": 5, "RETURNED": 1}
    assert await bank.tell(traded) == {"SEEN": 6}
    ids = await numbers(traded)
    fen = await traded.one("SELECT amount_fen FROM payout WHERE party = %s", BUSES)
    bank.move(ids[BUSES], -fen)
    assert await bank.tell(traded) == {"TWICE": 1}


async def test_whoever_knows_a_payouts_number_cannot_make_it_come_back_but_two_of_us_can(
    traded: Settling,
) -> None:
    _, bank = await ordered(traded, buses=Fate.SILENT)
    fen = await traded.one("SELECT amount_fen FROM payout WHERE party = %s", GROCER)
    bank.move((await numbers(traded))[GROCER], fen, "with no word of a return")
    assert await bank.tell(traded) == {"PAID": 4, "UNEXPLAINED": 1}
    assert (await states(traded))[GROCER] == "PAID"
    # What the bank refuses without an entry two people note, once.
    buses = (await numbers(traded))[BUSES]
    with pytest.raises(InputRefused, match="checker"):
        await resolve(traded.pg, buses, "REJECTED", actor="li wei", checker="Li Wei", reason="AC04")
    for _ in range(2):
        await resolve(traded.pg, buses, "REJECTED", actor="li wei", checker="wang fang", reason="AC04")
    assert await traded.one("SELECT count(*) FROM booking WHERE event = 'merchant_payout_returned'") == 1
    with pytest.raises(SettlementRefused, match="only an ordered one"):
        await resolve(traded.pg, buses, "PAID", actor="li wei", checker="wang fang", reason="no")


async def test_a_member_that_owes_pays_first_and_blocks_only_itself(city: Settling) -> None:
    await city.pay(
        Booking(Event.FEE_OTHERS, 1_200, 1, int(OTHER), "case 1"),
        Booking(Event.BANK_PURCHASE, 5_000, int(OTHER), 1, "case 2"),
        Booking(Event.MEDICAL_PURCHASE_FUND, 9_000, 0, 4, "case 3"),
    )
    await city.close()
    first = await city.settle()
    assert await states(city) == {
        OTHER: "EXPECTED",
        "FUND": "EXPECTED",
        GROCER: "ORDERED",
        HOSPITAL: "ORDERED",
    }
    fund = (await numbers(city))["FUND"]
    await city.pay(
        Booking(Event.FEE_OTHERS, 500, 1, int(OTHER), "case 4"),
        Booking(Event.BANK_PURCHASE, 700, 99999990, 1, "case 5"),
    )
    await city.close()
    made = await city.prepare()
    await city.approve(made.settlement_date)
    done = await city.order(made.settlement_date)
    assert ([(left.party, left.why) for left in done.left], done.payout_count) == ([(OTHER, "OWES")], 1)
    bank = Bank(CUSTODY, 0)
    collection = await city.one(
        "SELECT payout_id FROM payout WHERE settlement_date = %s AND party = %s", first, OTHER
    )
    bank.move("", 3_799, f"for {collection}, a fen short")
    bank.move("OUR-OWN-7", 3_800, f"settlement /{collection}/")
    bank.move(fund, 9_000)
    assert await bank.tell(city) == {"AMOUNT": 1, "FUNDED": 2}
    assert await balance(city, 1103) == 0
    await city.fold()
    assert await city.rows(
        "SELECT event, amount_fen FROM booking WHERE source = %s ORDER BY 1", f"payout {collection}"
    ) == [("bank_settled", 3_800), ("bank_share_set_off", 1_200)]
    assert (await city.order(made.settlement_date)).payout_count == 1
    assert await balance(city, 1101) == 700
    assert await balance(city, 2102) == 0


async def test_a_statement_of_nothing_is_taken_one_about_another_account_or_that_does_not_add_up_is_not(
    traded: Settling,
) -> None:
    _, bank = await ordered(traded)
    good = bank.statement(NOW).decode()
    path = traded.folder / "bad.xml"

    async def refused(text: str, words: str) -> None:
        path.write_text(text)
        with pytest.raises(StatementRefused, match=words):
            await traded.take(path)

    await refused(good.replace(CUSTODY, "6222000000000000013"), "not about the custody account")
    await refused(
        good.replace('<Amt Ccy="CNY">10000000.00', '<Amt Ccy="CNY">10000000.01', 1), "do not come to"
    )
    await refused(good[: len(good) // 2], "not well-formed")
    path.write_text(good)
    with pytest.raises(StatementRefused, match="longer than"):
        await traded.take(path, bytes_max=1_000)
    assert await traded.one("SELECT count(*) FROM bank_statement") == 0
    assert set((await states(traded)).values()) == {"ORDERED"}
    assert await Bank(CUSTODY, 5).tell(traded) == {}
    assert await traded.rows("SELECT opening_fen, closing_fen, ended_at IS NOT NULL FROM bank_statement") == [
        (5, 5, True)
    ]
