"""A day as a plain-text journal: the real tools accept it, their balances are the float statement's, and one fen more is refused."""

import re
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.evidence.plain_text import (
    MEMO_CONTRA,
    Tool,
    account_name,
    amount,
    event_words,
    export_day,
)
from switch.domain.errors import InputRefused
from switch.domain.transactions import Kind
from switch.ledger.chart import CHART, RULES, Code
from tests.helpers.clearing_day import add_journal, add_records, adjudicate
from tests.helpers.debian import program

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
CHECKERS = {Tool.HLEDGER: ("hledger", "hledger"), Tool.BEANCOUNT: ("bean-check", "beancount")}


def accepted(tool: Tool, path: Path) -> tuple[bool, str]:
    """Whether the real tool accepts a file, and what it says."""
    found = program(*CHECKERS[tool])
    command = [found, "-f", str(path), "check", "-s"] if tool is Tool.HLEDGER else [found, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
async def second_day(pg: Pg, day: date, terms: CloseTerms) -> date:
    """A closed day after another one, with purchases, refunds, fees, offline records and grey ones decided."""
    await add_records(pg, day, 900_000, 1, [("10", 200), ("04", 150)])
    await close_day(pg, day, terms, "a tester")
    following = day + timedelta(days=1)
    await add_journal(pg, following, 120, first=5_000_000)
    await add_records(pg, following, 6_000_000, 2, [("10", 333), ("04", 77)])
    await adjudicate(pg, following, 6_500_000, (900_001, day), "00")
    await close_day(pg, following, terms, "a tester")
    return following


async def exported(pg: Pg, day: date, tool: Tool, *, detail: bool) -> tuple[str, int]:
    parts: list[str] = []
    count = await export_day(pg, day, tool, parts.append, detail=detail)
    return "".join(parts), count


async def test_the_real_tools_accept_both_forms_and_refuse_one_fen_more_anywhere(
    pg: Pg, second_day: date, tmp_path: Path
) -> None:
    for tool in Tool:
        for detail in (False, True):
            text, count = await exported(pg, second_day, tool, detail=detail)
            path = tmp_path / f"{tool}-{detail}"
            path.write_text(text)
            good, said = accepted(tool, path)
            assert good, said
            assert (await exported(pg, second_day, tool, detail=detail)) == (text, count)
        text, _ = await exported(pg, second_day, tool, detail=False)
        amounts = [
            found
            for found in re.finditer(r"(?<= )-?\d+\.\d\d(?= (?:~ 0\.00 )?CNY)", text)
            if found[0] not in ("0.00", "1000.00")
        ]
        assert len(amounts) > 20
        for found in (amounts[0], amounts[len(amounts) // 2], amounts[-1]):
            fen = round(float(found[0]) * 100) + 1
            path.write_text(f"{text[: found.start()]}{amount(fen).removesuffix(' CNY')}{text[found.end() :]}")
            assert not accepted(tool, path)[0], found[0]


async def test_balances_of_the_tool_are_those_of_the_float_statement_and_sums_say_what_happened(
    pg: Pg, second_day: date, tmp_path: Path
) -> None:
    path = tmp_path / "day.journal"
    text, _ = await exported(pg, second_day, Tool.HLEDGER, detail=True)
    path.write_text(text)
    command = [program("hledger", "hledger"), "-f", str(path), "balance", "-N", "-E", "--flat", "-O", "csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"LANG": "C.UTF-8"})
    told = dict(re.findall(r'^"(.+?)","(.+?)"$', done.stdout, re.MULTILINE))
    cursor = await pg.execute(
        "SELECT code, opening_fen, closing_fen FROM clearing_float WHERE business_date = %s", (second_day,)
    )
    rows = await cursor.fetchall()
    assert len(rows) == len(Code)
    assert any(opening for _, opening, _ in rows)
    for code, _, closing_fen in rows:
        account = account_name(Code(code))
        assert told.get(account, "0") in (amount(closing_fen), "0"), account
        assert (told.get(account, "0") == "0") == (closing_fen == 0)
    grey = next(closing for code, _, closing in rows if code == Code.MEMO_GREY)
    assert told[MEMO_CONTRA] == amount(-grey)
    assert grey == 77

    text, count = await exported(pg, second_day, Tool.HLEDGER, detail=False)
    for words in (
        "* opening balances",
        "* purchase, account to merchant: ",
        "* refund, merchant to account: ",
        "* offline record, card to merchant: 1 postings",
        "* grey record accepted, card to merchant: 1 postings",
        "* fee own, merchant to nobody: ",
        "* grey records that came",
        "* grey records decided",
        "* closing balances",
    ):
        assert f"{second_day} {words}" in text
    details, more = await exported(pg, second_day, Tool.BEANCOUNT, detail=True)
    assert more > 10 * count
    assert f'{second_day} * "purchase, entry 5000001/0: ' in details


async def test_a_day_that_is_not_closed_is_refused(pg: Pg, day: date) -> None:
    with pytest.raises(InputRefused, match="is not closed"):
        await exported(pg, day, Tool.HLEDGER, detail=False)


def test_every_account_has_a_name_that_both_tools_read() -> None:
    names = [account_name(code) for code in CHART]
    assert len(set(names)) == len(names)
    assert all(
        re.fullmatch(r"(Assets|Liabilities|Income|Equity):\d{4}(-[A-Z][a-z]+)+", name) for name in names
    )


def test_a_posting_without_an_entry_is_named_by_the_events_of_the_chart() -> None:
    for event, rule in RULES.items():
        if rule.debit is not None and rule.credit is not None:
            assert event.value.replace("_", " ") in event_words(0, rule.debit, rule.credit, decided=False)
    assert event_words(Kind.REFUND, Code.MERCHANTS_PAYABLE, Code.ONLINE_ACCOUNTS, decided=False) == "refund"
    assert event_words(0, Code.FEE_INCOME, Code.CUSTODY_DEPOSIT, decided=False) == "posting"


@pytest.mark.parametrize(("fen", "text"), [(0, "0.00 CNY"), (-5, "-0.05 CNY"), (123456, "1234.56 CNY")])
def test_amounts_have_two_decimals(fen: int, text: str) -> None:
    assert amount(fen) == text
