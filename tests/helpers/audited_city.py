"""A city for the tests of the audit, at work through the code that works in earnest: import, book, intake, batch ends, folds, closes."""

import asyncio
import itertools
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from switch.clearing import received
from switch.clearing.centre import CentreTerms, centre_answer_kind, forward_kind
from switch.clearing.close import CloseTerms, close_day
from switch.clearing.depot_files import depot_kind
from switch.clearing.disputes.incoming import dispute_kind
from switch.clearing.evidence.sealing import SealSigner
from switch.clearing.fee_changes import approve, propose
from switch.clearing.files import FileName
from switch.clearing.foreign import answer_kind
from switch.clearing.own_cards import own_cards_kind
from switch.clearing.received import Receipt, Terms, take_file
from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Outcome
from switch.domain.identifiers import CardNumber, asn_of
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    BatchEnd,
    CardRequest,
    Completion,
    CompletionVoid,
    DetailUpload,
    Kind,
    Load,
    LoadConfirm,
    LoadSource,
    Original,
    PreAuthorisation,
    PreAuthorisationVoid,
    Purchase,
    PurseConfirmData,
    PurseLoadData,
    Refund,
    Reversal,
    Settlement,
    Void,
)
from switch.keys.software_vault import SoftwareVault
from switch.ledger.book import ShardBook
from switch.ledger.bookings import Booking, book
from switch.ledger.card_desk import change_card, find_card
from switch.ledger.card_states import FOLLOWING, Move
from switch.ledger.days import open_day
from switch.ledger.fold import fold_all
from switch.ledger.items import Item, Key
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import LegEnd
from switch.ledger.limit_desk import open_date, set_limit
from switch.ledger.limits import LimitRule
from switch.ledger.load_desk import settle, suspend_unconfirmed
from switch.ledger.load_states import Loading, LoadState
from switch.ledger.medical import PolicyRule
from switch.ledger.medical_desk import set_policy
from switch.ledger.terminal_batches import BatchMessage, TerminalBatches
from switch.messages.answers import DE39
from switch.operations.commands.registry import enter_day
from switch.purse.alarms import list_alarms, note
from switch.purse.intake import IntakeWriter, Upload, inline_tacs
from switch.purse.shadow import fold_purses
from switch.purse.trips import fold_trips
from switch.registry.importing import import_registry
from switch.storage.pool import connect
from tests.helpers.city_hosts import BANK, GUESTS, number_of
from tests.helpers.days import make_days
from tests.helpers.offline import CITY, ISSUER, OWN, Ride, merchant_of, pan_of, psam_of, upload

CENTRE = "99990000"
INTEROP = "99999999"  # where other cities meet
SHARDS = 2
CARDS = 12
ONLINE, MEDICAL = AccountKind.ONLINE, AccountKind.MEDICAL


def registry() -> dict[str, Any]:
    """The city as an import document; terminals and merchants get the numbers that tests.helpers.offline goes by."""
    return {
        "format": "citizen-card-registry",
        "version": 1,
        "institutions": [
            {"institution_id": OWN, "name": "own", "role": "ISSUER"},
            {"institution_id": CITY, "name": "next city", "role": "CITY"},
            {"institution_id": BANK, "name": "first bank", "role": "BANK"},
            {"institution_id": INTEROP, "name": "where cities meet", "role": "CENTRE"},
        ],
        "card_issuers": [
            {"issuer_id": f"{OWN}FFFFFFFF", "institution_id": OWN, "own": True},
            {"issuer_id": f"{CITY}FFFFFFFF", "institution_id": CITY, "own": False},
        ],
        "merchants": [
            {
                "merchant_id": f"99335005411{number:04d}",
                "name": f"shop {number}",
                "category": "4111",
                "acquirer_id": CITY if number == 3 else OWN,
            }
            for number in (1, 2, 3)
        ],
        "terminals": [
            {
                "terminal_id": f"335000{number:02d}",
                "merchant_id": f"99335005411{merchant_of(number):04d}",
                "mac_algorithm": 5,
            }
            for number in range(1, 9)
        ],
        "psams": [
            {
                "psam_no": psam_of(number).hex(),
                "merchant_id": f"99335005411{merchant_of(number):04d}",
                "terminal_id": f"335000{number:02d}",
            }
            for number in range(1, 9)
        ],
        "fee_rules": [
            {"account_kind": "ONLINE", "rate_ppm": 3800, "valid_from": "2020-01-01"},
            {"account_kind": "PURSE", "rate_ppm": 6000, "minimum_fen": 1, "valid_from": "2020-01-01"},
            {"account_kind": "BANK", "rate_ppm": 3000, "valid_from": "2020-01-01"},
            {
                "merchant_id": "993350054110002",
                "account_kind": "ONLINE",
                "rate_ppm": 5000,
                "cap_fen": 30,
                "valid_from": "2020-01-01",
            },
        ],
        "cards": [
            {
                "pan": pan_of(number),
                "holder": f"holder {number}",
                "valid_from": "2020-01-01",
                "valid_through": "2040-12-31",
                "online_opening_fen": 50_000,
                "medical_opening_fen": 20_000,
                "purse_opening_fen": 100_000,
                "purse_offline_atc": 0,
            }
            for number in range(1, CARDS + 1)
        ],
    }


def centre_terms(folder: Path, now: datetime | None = None) -> CentreTerms:
    """The centre in the same installation. now: what its clock says."""
    return CentreTerms(INTEROP, OWN, folder, lambda day: day.weekday() < 5, "a tester", now=now)


class City:
    """The city at work. Requests of terminal n, holders and cards by number. centre_now: what the centre's clock says."""

    centre_now: datetime | None = None

    def __init__(self, url: str, vault: SoftwareVault, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._vault = vault
        self._stans = itertools.count(1)
        self._books: list[ShardBook] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._intake: IntakeWriter
        self._batches: TerminalBatches
        self._holders: dict[int, tuple[int, int]] = {}

    async def __aenter__(self) -> "City":
        def opened() -> Any:
            return connect(self.url)

        self._books = [ShardBook(shard, opened, DE39) for shard in range(SHARDS)]
        self._intake = IntakeWriter(opened, inline_tacs(self._vault), SHARDS)
        self._batches = TerminalBatches(opened, SHARDS)
        self._tasks = [asyncio.create_task(one.run()) for one in self._writers()]
        async with await connect(self.url) as connection:
            cursor = await connection.execute("SELECT pan, shard, holder_id FROM card_route")
            routes = {pan: (shard, holder) for pan, shard, holder in await cursor.fetchall()}
        self._holders = {number: routes[pan_of(number)] for number in range(1, CARDS + 1)}
        self._holders |= {number: (number % SHARDS, 0) for number in GUESTS}
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._writers():
            one.stop()
        await asyncio.gather(*self._tasks)

    def _writers(self) -> list[ShardBook | IntakeWriter | TerminalBatches]:
        return [*self._books, self._intake, self._batches]

    def trace_from(self, stan: int) -> None:
        """Go on with another trace number: one that an earlier city in the same books has not used."""
        self._stans = itertools.count(stan)

    def request(
        self,
        content: CardRequest | LegEnd,
        card: int,
        *,
        terminal_no: int = 1,
        stan: int = 0,
        loading: Loading | None = None,
        ask: HostAsk | None = None,
    ) -> "tuple[int, asyncio.Future[Any]]":
        """Send a card request; its trace number and where its answer will be. ask: the host that decides."""
        shard, holder_id = self._holders[card]
        stan = stan or next(self._stans)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        item = Item(
            key=Key(terminal_no, 1, stan, 1 if isinstance(content, Reversal) else 0),
            merchant_no=merchant_of(terminal_no),
            digest=repr((stan, content)).encode()[-32:].rjust(32),
            generation=1,
            since=date.today() - timedelta(days=4),  # noqa: DTZ011  any early day does
            request=content,
            holder_id=holder_id,
            pin=None,
            pin_unreadable=False,
            done=lambda _item, outcome: future.set_result(outcome),
            loading=loading,
            ask=ask,
        )
        assert self._books[shard].submit(item)
        return stan, future

    async def ask(self, content: CardRequest, card: int, **how: Any) -> tuple[int, Outcome]:
        """Send and wait."""
        stan, future = self.request(content, card, **how)
        outcome = await future
        assert outcome is not None
        return stan, outcome

    async def buy(
        self, card: int, fen: int, *, terminal_no: int = 1, account: AccountKind = ONLINE
    ) -> tuple[int, Outcome]:
        """A purchase."""
        request = Purchase(CardNumber(number_of(card)), account, Fen(fen), None, "051")
        return await self.ask(request, card, terminal_no=terminal_no)

    async def undo(
        self,
        kind: type[Void] | type[Refund] | type[Reversal],
        card: int,
        fen: int,
        of: tuple[int, Outcome],
        *,
        terminal_no: int = 1,
        account: AccountKind = ONLINE,
        was: Kind = Kind.PURCHASE,
    ) -> tuple[int, Outcome]:
        """A void, refund or reversal of an earlier request."""
        stan, outcome = of
        day = outcome.clearing_date or outcome.decided_at.astimezone(SHANGHAI).date()
        number, original = CardNumber(number_of(card)), Original(1, stan, day.month, day.day)
        if kind is Reversal:
            content: CardRequest = Reversal(number, account, Fen(fen), original, was, "98", "051", "000000")
            return await self.ask(content, card, terminal_no=terminal_no, stan=stan)
        if kind is Void:
            content = Void(number, account, Fen(fen), original, outcome.rrn, outcome.auth_code, "051")
        else:
            content = Refund(number, account, Fen(fen), original, outcome.rrn, "051")
        return await self.ask(content, card, terminal_no=terminal_no)

    async def hold(self, card: int, fen: int, *, terminal_no: int = 1) -> tuple[int, Outcome]:
        """A pre-authorisation."""
        request = PreAuthorisation(CardNumber(number_of(card)), ONLINE, Fen(fen), None, "051")
        return await self.ask(request, card, terminal_no=terminal_no)

    async def follow(
        self,
        kind: type[PreAuthorisationVoid] | type[Completion] | type[CompletionVoid],
        card: int,
        fen: int,
        of: tuple[int, Outcome],
        *,
        terminal_no: int = 1,
        advice: bool = False,
    ) -> tuple[int, Outcome]:
        """What can follow a pre-authorisation, or a completion."""
        stan, outcome = of
        day = outcome.clearing_date or outcome.decided_at.astimezone(SHANGHAI).date()
        number, original = CardNumber(number_of(card)), Original(1, stan, day.month, day.day)
        code = outcome.auth_code
        if kind is Completion:
            content: CardRequest = Completion(number, ONLINE, Fen(fen), original, code, "051", advice)
        elif kind is CompletionVoid:
            content = CompletionVoid(number, ONLINE, Fen(fen), original, outcome.rrn, code, "051")
        else:
            content = PreAuthorisationVoid(number, ONLINE, Fen(fen), original, code, "051")
        return await self.ask(content, card, terminal_no=terminal_no)

    async def load(
        self,
        card: int,
        fen: int,
        atc: int | None,
        *,
        source: LoadSource = LoadSource.CASH,
        terminal_no: int = 1,
        balance_fen: int = 0,
    ) -> tuple[int, Outcome]:
        """A load of the card at this counter and balance, or with counter None one of the online account."""
        number, data = CardNumber(pan_of(card)), None
        if atc is not None:
            random = next(self._stans).to_bytes(4)
            psam = psam_of(terminal_no)
            data = PurseLoadData(
                asn_of(number), ISSUER, 1, 1, 0, Fen(balance_fen), atc, random, bytes(4), psam
            )
        agent = int(CITY if merchant_of(terminal_no) == 3 else OWN)
        loading = Loading(agent, takes_cash=True, card_proven=True, credit=lambda _at: b"field 55")
        return await self.ask(
            Load(number, source, Fen(fen), None, data, "051"), card, terminal_no=terminal_no, loading=loading
        )

    async def confirm(
        self,
        card: int,
        fen: int,
        atc: int,
        of: tuple[int, Outcome],
        *,
        good: bool | None = True,
        source: LoadSource = LoadSource.CASH,
        terminal_no: int = 1,
        balance_fen: int = 0,
    ) -> tuple[int, Outcome]:
        """What a terminal says about the end of a load; good None: the card is gone. balance_fen: before it."""
        stan, outcome = of
        day = outcome.clearing_date
        assert day is not None
        number, gone = CardNumber(pan_of(card)), good is None
        data = PurseConfirmData(
            asn_of(number),
            atc,
            psam_of(terminal_no),
            bytes(4),
            bytes(3),
            None if gone else bytes(4),
            None if gone else Fen(balance_fen + fen),
            0 if gone else 0x9000,
        )
        original = Original(1, stan, day.month, day.day)
        content = LoadConfirm(number, source, Fen(fen), original, outcome.rrn, data, "051")
        loading = Loading(tac_holds=lambda _load: bool(good))
        return await self.ask(content, card, terminal_no=terminal_no, loading=loading)

    async def unload(
        self, card: int, fen: int, of: tuple[int, Outcome], *, terminal_no: int = 1
    ) -> tuple[int, Outcome]:
        """The reversal of a load."""
        stan, outcome = of
        day = outcome.clearing_date
        assert day is not None
        original = Original(1, stan, day.month, day.day)
        content = Reversal(
            CardNumber(pan_of(card)), ONLINE, Fen(fen), original, Kind.LOAD, "98", "051", "630000"
        )
        agent = int(CITY if merchant_of(terminal_no) == 3 else OWN)
        return await self.ask(content, card, terminal_no=terminal_no, stan=stan, loading=Loading(agent))

    async def suspend(self) -> int:
        """What `cardswitch close` does with loads that nobody confirmed."""
        return sum([await suspend_unconfirmed(lambda: connect(self.url), shard) for shard in range(SHARDS)])

    async def decide(self, entry_no: int, to: LoadState) -> None:
        """Two people settle a load in suspense."""
        await settle(
            lambda: connect(self.url), entry_no, to, actor="li wei", checker="wang fang", reason="card seen"
        )

    async def bring(self, *rides: Ride, terminal_no: int = 1) -> Outcome:
        """Upload offline records."""
        return await self.send(upload(*(ride.pack() for ride in rides), terminal_no=terminal_no))

    async def send(self, content: Upload) -> Outcome:
        """Send an upload as it is."""
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        assert self._intake.submit(content._replace(stan=next(self._stans)), future.set_result)
        outcome = await future
        assert outcome is not None
        assert outcome.answer == "00"
        return outcome

    async def tell(self, content: Settlement | DetailUpload | BatchEnd, terminal_no: int) -> Outcome:
        """A message about a batch."""
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        stan = next(self._stans)
        message = BatchMessage(
            terminal_no,
            merchant_of(terminal_no),
            1,
            stan,
            stan.to_bytes(32),
            1,
            date.today() - timedelta(days=4),  # noqa: DTZ011  any early day does
            content,
            future.set_result,
        )
        assert self._batches.submit(message)
        outcome = await future
        assert outcome is not None
        return outcome

    async def lose(self, card: int) -> None:
        """Report a card lost."""
        async with await connect(self.url) as connection:
            place = await find_card(connection, pan_of(card))
            await change_card(connection, place, Move.LOSE, actor="a tester", reason="left on a bus")

    async def limit(self) -> None:
        """Limits on accounts from the next business day on, wide enough for everybody."""
        async with await connect(self.url) as connection:
            begins = await open_date(connection) + timedelta(days=1)
            for kind in (10, 40):
                rule = LimitRule(kind, None, None, 1_000_000, None, 100, None, begins, None)
                await set_limit(connection, rule, range(SHARDS), actor="a tester", reason="as agreed")

    async def govern(self) -> None:
        """A policy of the medical account from the next business day on, in the city's one category and in one that nobody is of."""
        async with await connect(self.url) as connection:
            begins = await open_date(connection) + timedelta(days=1)
            rule = PolicyRule(0, "4111", 300_000, None, 1_500, 1_000_000, True, begins, None)
            for terms in (rule, rule._replace(category="8062", own_pay_ppm=1, transaction_fen=9)):
                await set_policy(connection, terms, actor="a tester", reason="as agreed")

    async def take(self, path: Path) -> Receipt:
        """Take a file in, as `cardswitch files take` does."""
        terms = Terms(OWN, CENTRE, SHARDS, "a tester", INTEROP)
        async with await connect(self.url) as connection:

            def kind_of(name: FileName) -> received.Kind:
                if name.kind == "FH":
                    return forward_kind(connection, name, centre_terms(self.folder, self.centre_now))
                if name.kind == "DT" and name.receiver == INTEROP:
                    return centre_answer_kind(connection, name, centre_terms(self.folder, self.centre_now))
                if name.kind == "DT":
                    return answer_kind(connection, terms)
                if name.kind == "DF":
                    return own_cards_kind(connection, terms, inline_tacs(self._vault))
                if name.kind == "ER":
                    return dispute_kind(connection, name, terms)
                return depot_kind(connection, name, terms, inline_tacs(self._vault))

            return await take_file(connection, path, terms, kind_of)

    async def fold(self) -> None:
        """Fold hot balances, purses and trips, as the service does every few seconds."""
        async with await connect(self.url) as connection:
            await fold_all(connection, range(SHARDS))
            await fold_purses(connection)
            await fold_trips(connection)

    async def charge(self) -> None:
        """A rule for years to come, by two people."""
        rule = {
            "merchant_id": None,
            "category": "9999",
            "account_kind": 10,
            "rate_ppm": 1,
            "minimum_fen": 2,
            "cap_fen": 30,
        }
        weights = {"weight_issuer": 7, "weight_switch": 1, "weight_acquirer": 2}
        dates = {"valid_from": "2199-01-01", "valid_to": None}
        async with await connect(self.url) as connection:
            await connection.execute(
                "INSERT INTO subsidy_rule (sponsor_id, discount, line, rate_ppm, ride_cap_fen, day_cap_fen, valid_from) VALUES"
                " (%s, 'TRANSFER', '0003', 500000, 40, 10000, '2020-01-01'), (%s, 'OTHER', NULL, 300000, NULL, 9, '2020-01-01')",
                (CITY, CITY),
            )
            number = await propose(connection, [rule | weights | dates], actor="li wei", reason="as agreed")
            await approve(connection, number, actor="wang fang")

    async def pay(self, *bookings: Booking) -> None:
        """Book what no terminal moves, by two people."""
        async with await connect(self.url) as connection, connection.transaction():
            await book(connection, bookings, actor="li wei", checker="wang fang")

    async def look_into(self, kind: str) -> None:
        """Somebody acknowledges an alarm of this kind, and somebody else opens it again."""
        async with await connect(self.url) as connection:
            (alarm,) = await list_alarms(connection, kinds=[kind])
            about = [alarm.alarm_no]
            await note(connection, about, acknowledged=True, actor="li wei", reason="the bus has burnt")
            await note(connection, about, acknowledged=False, actor="wang fang", reason="it was another bus")

    async def today(self) -> date:
        """The open day."""
        async with await connect(self.url) as connection:
            return await open_date(connection)

    async def close(self) -> date:
        """Close the open day; the next begins."""
        terms = CloseTerms(
            own_id=OWN,
            centre_id=CENTRE,
            acquirer_code="49993350",
            shards=tuple(range(SHARDS)),
            folder=self.folder,
            is_workday=lambda day: day.weekday() < 5,
            lead_s=0.05,
            interop_centre=INTEROP,
            signer=SealSigner(self._vault),
        )
        async with await connect(self.url) as connection:
            day = await open_day(connection)
            assert day is not None
            await close_day(connection, day.day, terms, "a tester")
        return day.day


async def found(url: str, folder: Path) -> None:
    """Days, registry, and a session of each terminal with batch 1 open."""
    async with await connect(url) as connection:
        await make_days(connection, 4)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "city.json"
    whole = registry()
    merchants = {kind: whole[kind] for kind in ("format", "version", "institutions", "merchants")}
    with psycopg.connect(url, autocommit=True) as plain:
        for document in (*({**merchants, "merchants": whole["merchants"][:n]} for n in (1, 2, 3)), whole):
            path.write_text(json.dumps(document), encoding="utf-8")
            import_registry(
                plain,
                [path],
                shards=SHARDS,
                actor="tests",
                enter_day=enter_day,
                pins=_no_pins,
                numbers=_no_pins,
                following=FOLLOWING,
            )
        plain.execute("INSERT INTO interop_tariff VALUES ('2020-01-01', 50000, 1, NULL, 7, 1, 2, 'tests')")
        plain.execute(
            "INSERT INTO terminal_session SELECT terminal_no, 1, 1, 1, now() FROM terminal",
        )
        plain.execute(
            "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on) SELECT terminal_no, 1, business_date"
            " FROM terminal CROSS JOIN business_day WHERE begins_at <= now() AND now() < ends_at"
        )
        rows = plain.execute("SELECT terminal_no, terminal_id, merchant_no FROM terminal").fetchall()
        assert all(row == (row[0], f"335000{row[0]:02d}", merchant_of(row[0])) for row in rows), rows


def _no_pins() -> Any:
    raise AssertionError("no PIN in this city")
