"""A closed day as a plain-text journal of hledger or beancount, with opening balances and balance assertions from the float statement.

Whoever has one of these tools can add up a day without any code of ours: the assertions say what the float statement says, and the tool refuses the file when one
amount is another. Debits are positive, as in the float statement.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import date, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from switch.clearing.evidence.leaves import Connection
from switch.domain.errors import InputRefused
from switch.domain.transactions import Kind
from switch.ledger.chart import CHART, RULES, Code, Side
from switch.storage.sql import load

SQL: Final = load(__package__ or "", "plain_text.sql")
FETCHED_AT_ONCE: Final = 10_000
_ROOTS: Final = {
    Side.ASSET: "Assets",
    Side.LIABILITY: "Liabilities",
    Side.INCOME: "Income",
    Side.MEMO: "Equity",
}
assert _ROOTS.keys() == set(Side)
MEMO_CONTRA: Final = "Equity:9001-Off-Balance"  # a memo has no other side; these tools want one


class Tool(StrEnum):
    """Whose form."""

    HLEDGER = "hledger"
    BEANCOUNT = "beancount"


class Move(NamedTuple):
    """One transaction of the file: from the credited account to the debited one."""

    words: str
    debit: str
    credit: str
    amount_fen: int


class Balance(NamedTuple):
    """An account over the day, debit positive."""

    account: str
    opening_fen: int
    closing_fen: int


def account_name(code: Code) -> str:
    """An account as both tools can read it: the chart's number and name.

    >>> account_name(Code.AGENTS_RECEIVABLE)
    'Assets:1002-Cash-Agents-Receivable'
    """
    account = CHART[code]
    words = re.findall(r"[A-Za-z]+", account.name.replace("'", ""))
    return f"{_ROOTS[account.side]}:{code.value}-{'-'.join(word.capitalize() for word in words)}"


def amount(fen: int) -> str:
    """With two decimals and the currency."""
    whole, rest = divmod(abs(fen), 100)
    return f"{'-' if fen < 0 else ''}{whole}.{rest:02d} CNY"


def event_words(kind: int, debit: Code, credit: Code, *, decided: bool) -> str:
    """What happened: of a posting without an entry, the events of the chart that move money this way."""
    if decided:
        return "grey record accepted"
    if kind == Kind.UPLOAD:
        return "offline record"
    if kind:
        return Kind(kind).name.lower().replace("_", " ")
    events = [event.value.replace("_", " ") for event, rule in RULES.items() if rule[:2] == (debit, credit)]
    return " or ".join(events) or "posting"


def owners(debit: Code, credit: Code) -> str:
    """Whose accounts these are: of an account, a card, a merchant, an institution, or nobody's."""
    return f"{CHART[debit].owner.name.lower()} to {CHART[credit].owner.name.lower()}"


class _Hledger:
    """Its journal form: https://hledger.org/hledger.html, Journal."""

    comment = ";"

    def head(self, title: str, _day: date, accounts: Iterable[str]) -> Iterator[str]:
        yield f"; {title}\n\ncommodity 1000.00 CNY\n"
        for account in accounts:
            yield f"account {account}\n"

    def transaction(self, day: date, words: str, legs: Iterable[tuple[str, int]]) -> str:
        return "\n".join(
            (f"\n{day} * {words}", *(f"    {account}  {amount(fen)}" for account, fen in legs), "")
        )

    def end(self, day: date, balances: Iterable[Balance]) -> str:
        """Assertions stand in a transaction that moves nothing; they hold at its place in the file."""
        rows = (f"    {one.account}  {amount(0)} = {amount(one.closing_fen)}" for one in balances)
        return "\n".join((f"\n{day} * closing balances", *rows, ""))


class _Beancount:
    """Its syntax: https://beancount.github.io/docs/beancount_language_syntax.html."""

    def head(self, title: str, day: date, accounts: Iterable[str]) -> Iterator[str]:
        yield f'option "title" "{title}"\noption "operating_currency" "CNY"\n\n'
        for account in accounts:
            yield f"{day} open {account} CNY\n"

    def transaction(self, day: date, words: str, legs: Iterable[tuple[str, int]]) -> str:
        return "\n".join(
            (f'\n{day} * "{words}"', *(f"  {account}  {amount(fen)}" for account, fen in legs), "")
        )

    def end(self, day: date, balances: Iterable[Balance]) -> str:
        """An assertion holds at the begin of its date, and tolerates a cent unless it is told not to."""
        following = day + timedelta(days=1)
        rows = (
            f"{following} balance {one.account}  {amount(one.closing_fen).replace(' ', ' ~ 0.00 ')}"
            for one in balances
        )
        return "\n".join(("", *rows, ""))


async def export_day(
    connection: Connection, day: date, tool: Tool, write: Callable[[str], object], *, detail: bool
) -> int:
    """Write a closed day; how many transactions. detail: one for each posting, otherwise one for each kind of event and pair of accounts.

    Memory is flat. InputRefused when the day is not closed.
    """
    cursor = await connection.execute(SQL["closed"], {"day": day})
    row = await cursor.fetchone()
    if row is None:
        raise InputRefused(f"business day {day} is not closed")
    form = _Hledger() if tool is Tool.HLEDGER else _Beancount()
    balances, memo = await _balances(connection, day)
    for part in form.head(f"{row[0]}, business day {day}", day, [one.account for one in balances]):
        write(part)
    openings = [(one.account, one.opening_fen) for one in balances if one.opening_fen]
    if openings:
        write(form.transaction(day, "opening balances", openings))
    count = 0
    async for move in _details(connection, day) if detail else _sums(connection, day):
        write(
            form.transaction(
                day, move.words, ((move.debit, move.amount_fen), (move.credit, -move.amount_fen))
            )
        )
        count += 1
    for move in memo:
        write(
            form.transaction(
                day, move.words, ((move.debit, move.amount_fen), (move.credit, -move.amount_fen))
            )
        )
        count += 1
    write(form.end(day, balances))
    return count


async def _balances(connection: Connection, day: date) -> tuple[list[Balance], list[Move]]:
    """All accounts over the day, and what moved off balance."""
    cursor = await connection.execute(SQL["float"], {"day": day})
    balances: list[Balance] = []
    memo: list[Move] = []
    for number, opening_fen, debit_fen, credit_fen, closing_fen in await cursor.fetchall():
        account = account_name(Code(number))
        balances.append(Balance(account, opening_fen, closing_fen))
        if number == Code.MEMO_GREY:
            balances.append(Balance(MEMO_CONTRA, -opening_fen, -closing_fen))
            memo += [Move("grey records that came", account, MEMO_CONTRA, debit_fen)] if debit_fen else []
            memo += [Move("grey records decided", MEMO_CONTRA, account, credit_fen)] if credit_fen else []
    return balances, memo


async def _sums(connection: Connection, day: date) -> AsyncIterator[Move]:
    cursor = await connection.execute(SQL["sums"], {"day": day, "upload": Kind.UPLOAD.value})
    for kind, decided, debit_no, credit_no, count, fen in await cursor.fetchall():
        debit, credit = Code(debit_no), Code(credit_no)
        words = (
            f"{event_words(kind, debit, credit, decided=decided)}, {owners(debit, credit)}: {count} postings"
        )
        yield Move(words, account_name(debit), account_name(credit), fen)


async def _details(connection: Connection, day: date) -> AsyncIterator[Move]:
    names = {code.value: account_name(code) for code in Code}
    async with connection.transaction(), connection.cursor("export_postings") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        await cursor.execute(SQL["postings"], {"day": day, "upload": Kind.UPLOAD.value})
        async for kind, decided, debit, debit_owner, credit, credit_owner, fen, entry_no, line in cursor:
            event = event_words(kind, Code(debit), Code(credit), decided=decided)
            words = f"{event}, entry {entry_no}/{line}: {debit_owner} to {credit_owner}"
            yield Move(words, names[debit], names[credit], fen)
