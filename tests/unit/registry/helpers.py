"""A small city for the tests of this room: its records as an import document, and a day to book in."""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from switch.domain.identifiers import CardNumber, luhn_digit
from switch.ledger.card_states import FOLLOWING
from switch.registry.importing import Report, import_registry

DAY = date(2024, 3, 15)
MERCHANT = "898335054110001"
CLOSED_MERCHANT = "898335054110002"
OPERATOR = "99993350"


def pan_of(serial: int) -> str:
    """A citizen card number with its check digit."""
    digits = f"31335001{serial:010d}"
    return digits + luhn_digit(digits)


PAN = pan_of(1)


def city(**changes: Any) -> dict[str, Any]:
    """An import document; keyword arguments replace whole kinds, None takes one out."""
    document: dict[str, Any] = {
        "format": "citizen-card-registry",
        "version": 1,
        "institutions": [
            {"institution_id": OPERATOR, "name": "市民卡服務公司", "role": "ISSUER"},
            {"institution_id": "99993310", "name": "Next city", "role": "CITY"},
        ],
        "card_issuers": [
            {"issuer_id": "99993350FFFFFFFF", "institution_id": OPERATOR, "own": True},
            {"issuer_id": "99993310FFFFFFFF", "institution_id": "99993310", "own": False},
        ],
        "merchants": [
            {"merchant_id": MERCHANT, "name": "公交公司", "category": "4111", "acquirer_id": OPERATOR},
            {
                "merchant_id": CLOSED_MERCHANT,
                "name": "Gone",
                "category": "5411",
                "acquirer_id": OPERATOR,
                "state": "CLOSED",
            },
        ],
        "terminals": [
            {"terminal_id": "33500001", "merchant_id": MERCHANT, "mac_algorithm": 1},
            {"terminal_id": "33500005", "merchant_id": MERCHANT, "mac_algorithm": 5},
            {"terminal_id": "33500009", "merchant_id": MERCHANT, "mac_algorithm": 5, "state": "CLOSED"},
            {"terminal_id": "33500010", "merchant_id": CLOSED_MERCHANT, "mac_algorithm": 5},
        ],
        "psams": [{"psam_no": "335000000001", "merchant_id": MERCHANT, "terminal_id": "33500001"}],
        "fee_rules": [
            {"account_kind": "ONLINE", "rate_ppm": 6000, "valid_from": "2024-01-01"},
            {"category": "4111", "account_kind": "ONLINE", "rate_ppm": 3000, "valid_from": "2024-01-01"},
        ],
        "cards": [card(1, online_opening_fen=10_000, purse_opening_fen=5_000, purse_offline_atc=7)],
    }
    for kind, records in changes.items():
        if records is None:
            del document[kind]
        else:
            document[kind] = records
    return document


def card(serial: int, **changes: Any) -> dict[str, Any]:
    """A card record."""
    return {"pan": pan_of(serial), "valid_from": "2024-01-01", "valid_through": "2034-01-01"} | changes


BANK = "01020000"


def bank_card_of(serial: int) -> str:
    """A bank card's number with its check digit."""
    digits = f"622848{serial:012d}"
    return digits + luhn_digit(digits)


def binding(serial: int, **changes: Any) -> dict[str, Any]:
    """A binding of card `serial` to bank card `serial`; None takes a field out."""
    record = {
        "institution_id": BANK,
        "agreement_id": f"A-{serial}",
        "pan": pan_of(serial),
        "bank_card": bank_card_of(serial),
        "holder_confirmed": True,
        "confirmed_at": "2024-03-01T10:30:00+08:00",
    } | changes
    return {name: value for name, value in record.items() if value is not None}


def bound(*records: dict[str, Any], cards: int = 3) -> dict[str, Any]:
    """The city with a bank, some cards, and these bindings."""
    document = city(
        cards=[card(n, online_opening_fen=1_000) for n in range(1, cards + 1)], bindings=[*records]
    )
    document["institutions"].append({"institution_id": BANK, "name": "工商銀行", "role": "BANK"})
    return document


def write(folder: Path, document: dict[str, Any], name: str = "city.json") -> Path:
    """Write a document."""
    path = folder / name
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def open_day(connection: psycopg.Connection[Any], day: date = DAY) -> None:
    """Let the database's clock be in `day`, whatever today is."""
    connection.execute(
        "INSERT INTO business_day (business_date, begins_at, ends_at)"
        " VALUES (%s, now() - interval '1 hour', now() + interval '1 hour')",
        (day,),
    )
    connection.execute("SELECT make_day_partition('posting', %s)", (day,))
    connection.commit()


class Gate:
    """Stands for the ledger: notes which gates were asked for, and lets into DAY."""

    def __init__(self) -> None:
        self.shards: list[list[int]] = []

    def __call__(self, cursor: psycopg.ClientCursor[Any], shards: Sequence[int]) -> date:
        self.shards.append(list(shards))
        return DAY


class Pins:
    """Stands for a rehearsal vault where only the flow of PINs matters."""

    def verifier_of_clear_pin(self, pin: str, account_id: int) -> bytes:
        return f"{pin}/{account_id}".encode().ljust(16, b"\0")[:16]


class Numbers:
    """Stands for a vault where only the flow of bank card numbers matters: whoever sees the number in clear has failed."""

    def seal_account(self, number: CardNumber, context: bytes) -> bytes:
        return hashlib.sha256(number.reveal().encode() + context).digest()

    def account_tag(self, number: CardNumber) -> bytes:
        return hashlib.sha256(number.reveal().encode()).digest()[:16]


def run_import(connection: psycopg.Connection[Any], *paths: Path, **options: Any) -> Report:
    """Import with usual arguments; the keyword arguments replace them."""
    usual: dict[str, Any] = {
        "shards": 2,
        "actor": "tests",
        "enter_day": Gate(),
        "pins": Pins,
        "numbers": Numbers,
        "following": FOLLOWING,
    }
    return import_registry(connection, paths, **(usual | options))
