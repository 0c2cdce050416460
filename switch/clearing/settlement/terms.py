"""Terms of payout: where a merchant or institution is paid, from when, how often, and what stays.

An account is proposed by one person and confirmed by another, and rests sealed; the rest one person sets. Both are rows that
never change: what held on a settlement date can always be said. The operator's own account is the custody account that pays.
"""

import re
from datetime import date
from typing import Any, Final, NamedTuple, Protocol

from switch.clearing.settlement.turn import Connection, SettlementRefused
from switch.domain.people import another, person
from switch.ledger.card_states import with_reason
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "terms.sql")
LISTED_MAX: Final = 10_000
AMOUNT_MAX: Final = 10**15 - 1
_NUMBER: Final = re.compile(r"[0-9A-Za-z]{5,34}", re.ASCII).fullmatch
_BANK: Final = re.compile(r"[0-9]{12}|[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?", re.ASCII).fullmatch
CYCLE_DAYS: Final = {"DAILY": None, "WEEKLY": 7, "MONTHLY": 28}
KEPT_OPEN: Final = 4  # characters of an account number that people see


class SealNumbers(Protocol):
    """The vault, as far as account numbers need it."""

    def seal_bank_account(self, number: str, context: bytes) -> bytes:
        """Sealed for what it belongs to."""

    def open_bank_account(self, sealed: bytes, context: bytes) -> str:
        """The number, or SealError."""


class Account(NamedTuple):
    """A confirmed account of a party. sealed: its number, see number_of."""

    account_no: int
    party: str
    account_name: str
    bank_code: str
    sealed: bytes
    mask: str


class Terms(NamedTuple):
    """How a party is paid. held_all: nothing is paid up to held_until (None: until further notice); held_fen: that much stays."""

    minimum_fen: int = 0
    cycle: str = "DAILY"
    cycle_day: int | None = None
    held_all: bool = False
    held_fen: int = 0
    held_until: date | None = None
    held_reason: str = ""


def seal_context(party: str, bank_code: str) -> bytes:
    """What an account number is sealed for: neither can hold the separator."""
    return "\x1f".join(("payout account", party, bank_code)).encode()


def number_of(vault: SealNumbers, account: Account) -> str:
    """The account's number, for the payment order alone. SealError when the row was altered or is another party's."""
    return vault.open_bank_account(account.sealed, seal_context(account.party, account.bank_code))


async def _known(connection: Connection, party: str) -> str:
    row = await (await connection.execute(SQL["party_kind"], {"party": party})).fetchone()
    if row is None:
        raise SettlementRefused("party: no merchant and no institution has this id")
    kind: str = row[0]
    return kind


async def _from(connection: Connection, valid_from: date) -> None:
    row = await (await connection.execute(SQL["newest_run"])).fetchone()
    if row is not None and row[0] is not None and valid_from <= row[0]:
        raise SettlementRefused(f"valid from: must be after {row[0]}, which is settled already")


async def propose_account(
    connection: Connection,
    vault: SealNumbers,
    party: str,
    *,
    account_name: str,
    number: str,
    bank_code: str,
    valid_from: date,
    actor: str,
    reason: str,
) -> int:
    """Propose where a party is to be paid; its number, for `confirm_account`. Nothing is paid there before that."""
    name = " ".join(account_name.split())
    if not 0 < len(name) <= 70 or not name.isprintable():
        raise SettlementRefused("account name: 1 to 70 printable characters")
    if not _NUMBER(number):
        raise SettlementRefused("account number: 5 to 34 letters and digits")  # never echo it
    if not _BANK(bank_code):
        raise SettlementRefused("bank code: a BIC of 8 or 11 characters, or 12 digits (CNAPS)")
    why, who = with_reason(reason), person("actor", actor)
    await _known(connection, party)
    cursor = await connection.execute(
        SQL["propose_account"],
        {
            "party": party,
            "account_name": name,
            "bank_code": bank_code,
            "sealed": vault.seal_bank_account(number, seal_context(party, bank_code)),
            "mask": "*" * (len(number) - KEPT_OPEN) + number[-KEPT_OPEN:],
            "valid_from": valid_from,
            "reason": why,
            "actor": who,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    account_no: int = row[0]
    return account_no


async def confirm_account(connection: Connection, account_no: int, *, actor: str) -> str:
    """Put a proposed account in force, by another person; whose it is. Confirming it again changes nothing."""
    who = person("actor", actor)
    async with connection.transaction():
        cursor = await connection.execute(SQL["lock_account"], {"account_no": account_no})
        row = await cursor.fetchone()
        if row is None:
            raise SettlementRefused("account: no such number")
        party: str = row[0]
        if row[2] is None:
            confirmed = {"account_no": account_no, "actor": another("actor", who, row[1])}
            await connection.execute(SQL["confirm_account"], confirmed)
    return party


async def account_in_force(connection: Connection, party: str, day: date) -> Account | None:
    """Where a party is paid on a settlement date; None: nowhere yet."""
    row = await (await connection.execute(SQL["account_in_force"], {"party": party, "day": day})).fetchone()
    return None if row is None else Account(*row)


async def terms_in_force(connection: Connection, party: str, day: date) -> Terms:
    """How a party is paid on a settlement date."""
    row = await (await connection.execute(SQL["terms_in_force"], {"party": party, "day": day})).fetchone()
    return Terms() if row is None else Terms(*row)


async def set_terms(
    connection: Connection, party: str, terms: Terms, *, valid_from: date, actor: str, reason: str
) -> int:
    """Let terms hold from a settlement date on that is not prepared yet; the number of the row."""
    last = CYCLE_DAYS.get(terms.cycle, 0)
    if last == 0:
        raise SettlementRefused("cycle: DAILY, WEEKLY or MONTHLY")
    if (last is None) != (terms.cycle_day is None) or not 1 <= (terms.cycle_day or 1) <= (last or 1):
        raise SettlementRefused("cycle day: 1 to 7 for WEEKLY, 1 to 28 for MONTHLY, none for DAILY")
    if not 0 <= terms.minimum_fen <= AMOUNT_MAX or not 0 <= terms.held_fen <= AMOUNT_MAX:
        raise SettlementRefused("amounts: at least 0, at most 15 digits of fen")
    holds = terms.held_all or terms.held_fen > 0
    if terms.held_all and terms.held_fen:
        raise SettlementRefused("held: either all or an amount")
    if holds and not terms.held_reason.strip():
        raise SettlementRefused("held: needs its reason")
    if not holds and (terms.held_reason or terms.held_until):
        raise SettlementRefused("held: a reason or an end needs an amount, or all")
    why, who = with_reason(reason), person("actor", actor)
    if holds:
        terms = terms._replace(held_reason=with_reason(terms.held_reason))
    await _known(connection, party)
    async with connection.transaction():
        # A preparation that runs meanwhile keeps the table still: either it sees this row, or this sees its date.
        await connection.execute(SQL["wait_for_preparation"])
        await _from(connection, valid_from)
        cursor = await connection.execute(
            SQL["set_terms"],
            terms._asdict() | {"party": party, "valid_from": valid_from, "actor": who, "reason": why},
        )
        row = await cursor.fetchone()
    assert row is not None
    terms_no: int = row[0]
    return terms_no


async def list_accounts(connection: Connection, party: str = "") -> list[dict[str, Any]]:
    """Accounts, proposed ones too, with masked numbers; of one party or of all."""
    return await _listed(connection, "list_accounts", party)


async def list_terms(connection: Connection, party: str = "") -> list[dict[str, Any]]:
    """Terms that were ever set; of one party or of all."""
    return await _listed(connection, "list_terms", party)


async def _listed(connection: Connection, query: str, party: str) -> list[dict[str, Any]]:
    cursor = await connection.execute(SQL[query], {"party": party, "most": LISTED_MAX})
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
