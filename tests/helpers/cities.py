"""Cities and the interop centre between them, each an installation with a database and a folder of its own.

Cities are called by the last digit of their institution: 1, 2, 3. All have the same national root, so one vault serves the tests.
"""

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from switch.clearing.centre import CentreTerms, centre_answer_kind, forward_kind
from switch.clearing.centre_run import Ran, rewrite, run_centre
from switch.clearing.close import CloseTerms, close_day
from switch.clearing.depot_files import depot_kind
from switch.clearing.files import FileName
from switch.clearing.foreign import Deadline, answer_kind
from switch.clearing.own_cards import own_cards_kind
from switch.clearing.received import Kind, Receipt, Terms, take_file
from switch.clearing.signatures import Signer
from switch.domain.calendar import SHANGHAI
from switch.domain.identifiers import luhn_digit
from switch.keys.software_vault import SoftwareVault
from switch.ledger.card_states import FOLLOWING
from switch.ledger.days import open_day
from switch.operations.audit import audit
from switch.operations.commands.registry import enter_day
from switch.purse.intake import inline_tacs
from switch.registry.importing import import_registry
from switch.storage.pool import connect, connect_now
from tests.helpers.days import make_days
from tests.helpers.offline import Ride

CENTRE: Final = "99999999"
CARDS, OPENING_FEN = 6, 100_000
NEVER: Final = Deadline(days=30)
TARIFF: Final = (5_000, 1, None, 7, 1, 2)  # ppm, minimum, cap, weights


def city_id(city: int) -> str:
    """Institution of a city."""
    return f"9999331{city}"


def issuer_of(city: int) -> bytes:
    """What its cards say of their issuer."""
    return bytes.fromhex(f"{city_id(city)}FFFFFFFF")


def pan_of(city: int, card: int) -> str:
    """Number of a city's card."""
    digits = f"31331{city}01{card:010d}"
    return digits + luhn_digit(digits)


def ride(card_city: int, card: int, at: int, **more: Any) -> Ride:
    """A purchase with a card of one city at the merchant of another."""
    asn = "0" + pan_of(card_city, card)
    return Ride(
        asn=asn,
        issuer=issuer_of(card_city),
        acquirer=more.pop("acquirer", city_id(at)),
        psam=more.pop("psam", bytes.fromhex(f"331{at}00000001")),
        **more,
    )


def registry(own_id: str, members: Iterable[int]) -> dict[str, Any]:
    """An installation's view of the cities: its own has a bus and cards, the others are neighbours."""
    cities = list(members)
    document: dict[str, Any] = {
        "format": "citizen-card-registry",
        "version": 1,
        "institutions": [{"institution_id": CENTRE, "name": "centre", "role": "CENTRE"}],
        "card_issuers": [],
    }
    for city in cities:
        own = city_id(city) == own_id
        document["institutions"].append(
            {"institution_id": city_id(city), "name": f"city {city}", "role": "ISSUER" if own else "CITY"}
        )
        circle = {} if own else {"circle": "HANGZHOU"}
        issuer = {"issuer_id": issuer_of(city).hex().upper(), "institution_id": city_id(city), "own": own}
        document["card_issuers"].append(issuer | circle)
        if own:
            document |= _own(city)
    return document


def _own(city: int) -> dict[str, Any]:
    merchant, terminal = f"99331{city}041110001", f"331{city}0001"
    fee = {"account_kind": "PURSE", "rate_ppm": 6000, "minimum_fen": 2, "valid_from": "2020-01-01"}
    return {
        "merchants": [
            {"merchant_id": merchant, "name": "buses", "category": "4111", "acquirer_id": city_id(city)}
        ],
        "terminals": [{"terminal_id": terminal, "merchant_id": merchant, "mac_algorithm": 5}],
        "psams": [{"psam_no": f"331{city}00000001", "merchant_id": merchant, "terminal_id": terminal}],
        "fee_rules": [fee],
        "cards": [
            {
                "pan": pan_of(city, card),
                "valid_from": "2020-01-01",
                "valid_through": "2040-12-31",
                "purse_opening_fen": OPENING_FEN,
            }
            for card in range(1, CARDS + 1)
        ],
    }


def _none() -> Any:
    raise AssertionError("no PINs and no bank cards here")


class Installation:
    """One database, one folder."""

    def __init__(self, url: str, vault: SoftwareVault, folder: Path, own_id: str) -> None:
        self.url, self.vault, self.folder, self.own_id = url, vault, folder, own_id
        self.terms = Terms(own_id, "99990000", 2, "li wei", CENTRE)
        folder.mkdir(parents=True, exist_ok=True)

    async def build(self, members: Iterable[int] = (1, 2, 3), tariff: Any = TARIFF) -> None:
        """Days, the registry as this installation sees it, and what cities charge each other."""
        async with await connect(self.url) as connection:
            await make_days(connection, 6)
            if tariff is not None:
                await connection.execute(
                    "INSERT INTO interop_tariff VALUES ('2020-01-01', %s, %s, %s, %s, %s, %s, 'li wei')",
                    tariff,
                )
        path = self.folder / "registry.json"
        path.write_text(json.dumps(registry(self.own_id, members)), encoding="utf-8")
        with psycopg.connect(self.url, autocommit=True) as plain:
            import_registry(
                plain, [path], shards=2, actor="tests", enter_day=enter_day, pins=_none, numbers=_none,
                following=FOLLOWING,
            )  # fmt: skip
        path.unlink()

    async def today(self) -> date:
        async with await connect(self.url) as connection:
            row = await open_day(connection)
        assert row is not None
        return row.day

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with await connect(self.url) as connection:
            return await (await connection.execute(query.encode(), values)).fetchall()

    async def close(self, deadline: Deadline = NEVER) -> Path:
        """Close the open day; the folder of its files."""
        day = await self.today()
        terms = CloseTerms(
            self.own_id, "99990000", "49993310", (0, 1), self.folder, lambda one: one.weekday() < 5,
            lead_s=0.02, interop_centre=CENTRE, deadline=deadline,
        )  # fmt: skip
        async with await connect(self.url) as connection:
            await close_day(connection, day, terms, "li wei")
        return self.folder / f"{day:%Y%m%d}"

    async def again(self, day: date) -> None:
        """Close a closed day again: missing files are written."""
        terms = CloseTerms(
            self.own_id, "99990000", "49993310", (0, 1), self.folder, lambda one: one.weekday() < 5,
            interop_centre=CENTRE,
        )  # fmt: skip
        async with await connect(self.url) as connection:
            await close_day(connection, day, terms, "li wei")

    def audit_faults(self) -> list[Any]:
        """What `cardswitch audit` finds."""
        with connect_now(self.url) as connection:
            report = audit(connection, self.folder)
        return [place for verdict in report.verdicts for place in verdict.places]

    async def take(self, path: Path, **how: Any) -> Receipt:
        """Take a file, as `cardswitch files take` does."""
        async with await connect(self.url) as connection:
            return await take_file(
                connection, path, self.terms, lambda name: self.kind_of(connection, name), **how
            )

    def kind_of(self, connection: Any, name: FileName) -> Kind:
        """How a city takes a type of file."""
        if name.kind == "DF":
            return own_cards_kind(connection, self.terms, inline_tacs(self.vault))
        if name.kind == "DT":
            return answer_kind(connection, self.terms)
        return depot_kind(connection, name, self.terms, inline_tacs(self.vault))


class Centre(Installation):
    """The interop centre. Its clock stands where a test puts it."""

    def __init__(self, url: str, vault: SoftwareVault, folder: Path) -> None:
        super().__init__(url, vault, folder, CENTRE)
        self.now: datetime | None = None
        self.signer: Signer | None = None

    @property
    def centre_terms(self) -> CentreTerms:
        return CentreTerms(
            *(CENTRE, CENTRE, self.folder, lambda one: one.weekday() < 5, "wang fang"),
            now=self.now,
            file_signer=self.signer,
        )

    def at(self, day: date, days: int, hours: int, minutes: int = 0) -> None:
        """Put the clock: so many days after a date, at this time in Shanghai."""
        self.now = datetime.combine(day + timedelta(days), time(hours, minutes), SHANGHAI).astimezone(UTC)

    async def run(self) -> Ran:
        async with await connect(self.url) as connection:
            return await run_centre(connection, self.centre_terms)

    async def rewrite(self, day: date) -> None:
        async with await connect(self.url) as connection:
            await rewrite(connection, day, self.centre_terms)

    def kind_of(self, connection: Any, name: FileName) -> Kind:
        """How the centre takes a type of file."""
        if name.kind == "FH":
            return forward_kind(connection, name, self.centre_terms)
        assert name.kind == "DT"
        return centre_answer_kind(connection, name, self.centre_terms)

    def files(self, kind: str, receiver: str, day: date | None = None) -> list[Path]:
        """Complete files of a type for somebody, by name."""
        found = self.folder.glob(f"*/{kind}{CENTRE}{receiver}{f'{day:%Y%m%d}' if day else ''}*.ok")
        return sorted(path.with_suffix("") for path in found)


def details(path: Path) -> list[str]:
    """Detail lines of a file."""
    return path.read_text("ascii").splitlines()[1:-1]


def owed_fen(url: str) -> int:
    """What other cities and the centre owe an installation, by its books: 1102 less 2102."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(CASE WHEN debit_code IN (1102, 2102) THEN amount_fen ELSE 0 END"
            " - CASE WHEN credit_code IN (1102, 2102) THEN amount_fen ELSE 0 END), 0)::bigint FROM clearing_posting"
        ).fetchone()
    assert row is not None
    return int(row[0])
