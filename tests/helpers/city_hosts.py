"""Hosts for the city of `audited_city`: what is asked of them, as routing would have it, and what they say; the book does the rest."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg

from switch.domain.decisions import Decline, Outcome
from switch.domain.hosts import (
    HostAnswer,
    HostDown,
    HostKey,
    HostOutcome,
    HostService,
    HostTimeout,
    Refusal,
    Unknown,
)
from switch.domain.identifiers import CardNumber, luhn_digit
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Balance, Purchase, Refund, Reversal, Void
from switch.ledger.leg_state import HostAsk, StandInTerms
from switch.ledger.legs import Asked, LegEnd
from tests.helpers.offline import CITY, merchant_of, pan_of

if TYPE_CHECKING:
    from tests.helpers.audited_city import City

BANK = "01020000"
BOUND = "6228480000000000011"
GUESTS = range(901, 905)  # cards of the next city
FUND_OWES, CITY_OWES, BANK_OWES = (1103, 0), (1102, int(CITY)), (1101, int(BANK))
STANDING_IN = StandInTerms(10_000, 50_000, 10)
End = Callable[[HostKey], HostOutcome | Decline | None]
Told = tuple[int, Outcome]


def number_of(card: int) -> str:
    """The number of a card of ours, or of a guest's."""
    if card not in GUESTS:
        return pan_of(card)
    digits = f"31331001{card:010d}"
    return digits + luhn_digit(digits)


def says(code: str = "00", auth: str = "B00001", available_fen: int | None = None) -> End:
    """A host that answers."""
    available = None if available_fen is None else Fen(available_fen)
    return lambda key: HostAnswer(key, code, auth if code == "00" else "", "", None, "0315", available, "")


def silent(why: Unknown = Unknown.SILENT) -> End:
    """A host of which nobody knows what it did."""
    return lambda key: HostTimeout(key, why)


def away(key: HostKey) -> HostDown:
    """A host to which nothing was sent."""
    return HostDown(key, Refusal.NO_LINE)


class Hosts:
    """What this city's cards ask of their hosts."""

    def __init__(self, city: "City") -> None:
        self.city = city

    async def ask(
        self,
        card: int,
        fen: int | None,
        account: AccountKind = AccountKind.BANK,
        *,
        terminal_no: int = 7,
        stand_in: StandInTerms | None = None,
        bound: str = "",
    ) -> tuple[int, Any, Purchase | Balance]:
        """Put a question, or be stood in for: trace number, what the book told, and the request. fen None: a balance.

        bound: the card as the bank knows it, where that is another.
        """
        number = CardNumber(number_of(card))
        request: Purchase | Balance = Balance(number, account, None, "051")
        if fen is not None:
            request = Purchase(number, account, Fen(fen), None, "051")
        host, owes = ("fund", FUND_OWES) if account == AccountKind.MEDICAL else ("bank", BANK_OWES)
        if card in GUESTS:
            host, owes = "city", CITY_OWES
        ask = HostAsk(
            host,
            HostService.BALANCE if fen is None else HostService.PURCHASE,
            *owes,
            CardNumber(bound) if bound else number,
            f"335000{terminal_no:02d}",
            f"99335005411{merchant_of(terminal_no):04d}",
            15.0,
            stand_in,
        )
        stan, future = self.city.request(request, card, terminal_no=terminal_no, ask=ask)
        return stan, await future, request

    async def end(
        self, card: int, asked: tuple[int, Any, Purchase | Balance], end: End, *, terminal_no: int = 7
    ) -> Told:
        """Bring what the host said into the book; what the terminal hears."""
        stan, told, request = asked
        assert isinstance(told, Asked), told
        ending = LegEnd(
            request.card, request.account, getattr(request, "amount_fen", Fen(0)), end(told.key), "051"
        )
        _, future = self.city.request(ending, card, terminal_no=terminal_no, stan=stan)
        outcome: Outcome = await future
        return stan, outcome

    async def abandoned(self, card: int, fen: int, bound: str) -> Told:
        """A purchase of a bound bank card that nobody ended in time: whoever sweeps finds the leg, and no other card in it."""
        stan, _, request = await self.ask(card, fen, bound=bound)
        ending = LegEnd(CardNumber(bound), request.account, Fen(fen), None)
        _, future = self.city.request(ending, card, terminal_no=7, stan=stan)
        outcome: Outcome = await future
        assert outcome.answer == "68", outcome
        return stan, outcome

    async def buy(
        self,
        card: int,
        fen: int | None,
        end: End | None = None,
        account: AccountKind = AccountKind.BANK,
        *,
        terminal_no: int = 7,
        code: str = "00",
    ) -> Told:
        """A purchase from question to answer; a balance where fen is None."""
        asked = await self.ask(card, fen, account, terminal_no=terminal_no)
        told = await self.end(card, asked, end or says(), terminal_no=terminal_no)
        assert told[1].answer == code, told
        return told

    async def undo(
        self,
        kind: type[Void] | type[Refund] | type[Reversal],
        card: int,
        fen: int,
        of: Told,
        account: AccountKind = AccountKind.BANK,
        *,
        terminal_no: int = 7,
    ) -> Told:
        """Give back, all or a part."""
        told = await self.city.undo(kind, card, fen, of, terminal_no=terminal_no, account=account)
        assert told[1].answer == "00", told
        return told

    async def stood_in(self, card: int, fen: int) -> Told:
        """A purchase that we approve in the bank's place."""
        stan, told, _ = await self.ask(card, fen, stand_in=STANDING_IN)
        assert told.answer == "00", told
        return stan, told

    def deliver(self, advice_of: Told) -> None:
        """The bank confirms an advice about what we approved for it."""
        with psycopg.connect(self.city.url) as plain:
            done = plain.execute(
                "UPDATE host_outbox o SET done_at = clock_timestamp(), result = 1, tries = 1, last_end = '00' FROM host_leg l"
                " WHERE l.shard = o.shard AND l.leg_no = o.leg_no AND l.rrn = %s AND o.step = 3 AND o.service = 1"
                " RETURNING o.shard, o.host, o.amount_fen",
                (advice_of[1].rrn,),
            ).fetchone()
            assert done is not None
            plain.execute(
                "UPDATE stand_in SET outstanding_fen = outstanding_fen - %s, outstanding_count = outstanding_count - 1"
                " WHERE shard = %s AND host = %s",
                (done[2], *done[:2]),
            )


async def first_day_at_hosts(hosts: Hosts) -> dict[str, Any]:
    """Questions with every end that there is, and what can follow an approval. Returns what later days refer to."""
    online, medical = AccountKind.ONLINE, AccountKind.MEDICAL
    guest, other_guest = GUESTS[0], GUESTS[1]
    kept = {
        "bank": await hosts.buy(1, 3_333),
        "guest": await hosts.buy(guest, 2_222, account=online),
        "fund": await hosts.buy(6, 1_111, account=medical),
    }
    await hosts.undo(Void, 2, 600, await hosts.buy(2, 600))
    await hosts.undo(Reversal, 3, 700, await hosts.buy(3, 700, says(auth="")))
    part = await hosts.buy(4, 900)
    await hosts.undo(Refund, 4, 100, part)
    await hosts.undo(Refund, 4, 250, part)
    await hosts.undo(Refund, 6, 50, await hosts.buy(6, 60, account=medical), medical)
    await hosts.undo(Void, guest, 81, await hosts.buy(guest, 81, account=online), online)
    await hosts.buy(other_guest, 5_000, account=online, terminal_no=8)
    await hosts.buy(5, 4_321, terminal_no=8)
    await hosts.buy(5, 10, says("51"), code="51")
    await hosts.buy(5, 11, says("75"), code="38")
    await hosts.buy(5, 12, says("96"), code="96")
    await hosts.buy(5, 13, says("99"), code="05")
    await hosts.buy(5, 14, silent(), code="68")
    await hosts.buy(5, 15, silent(Unknown.MAC_WRONG), code="68")
    await hosts.buy(5, 16, away, code="91")
    await hosts.buy(5, 17, lambda _key: Decline.PIN_UNREADABLE, code="99")
    await hosts.buy(5, 18, lambda _key: None, code="68")
    await hosts.buy(5, None, says(auth="", available_fen=777))
    await hosts.buy(5, None, says(auth="", available_fen=-5))
    await hosts.buy(5, None, says(auth=""))
    await hosts.buy(5, None, silent(), code="68")
    await hosts.abandoned(5, 21, BOUND)
    asked = await hosts.ask(9, 19)
    await hosts.undo(Reversal, 9, 19, (asked[0], Outcome("", "", asked[1].at)))
    assert (await hosts.end(9, asked, says()))[1].answer == "68"
    hosts.deliver(await hosts.stood_in(10, 2_000))
    await hosts.stood_in(10, 2_500)
    await hosts.undo(Void, 11, 444, await hosts.stood_in(11, 444))
    kept["late"] = await hosts.ask(12, 20, terminal_no=8)
    return kept


async def second_day_at_hosts(hosts: Hosts, kept: dict[str, Any]) -> None:
    """What is given back a day later, a purchase at the fund, and a question that is not answered when the days end."""
    await hosts.undo(Refund, 1, 333, kept["bank"])
    await hosts.undo(Refund, GUESTS[0], 2_222, kept["guest"], AccountKind.ONLINE)
    await hosts.undo(Refund, 6, 1, kept["fund"], AccountKind.MEDICAL)
    await hosts.buy(6, 640, account=AccountKind.MEDICAL)
    await hosts.buy(1, 65)
