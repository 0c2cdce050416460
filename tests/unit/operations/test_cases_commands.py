"""`cardswitch cases` against a real PostgreSQL, as two operators use it."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from switch.clearing.disputes.steps import ActionRefused
from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Outcome
from switch.domain.errors import InputRefused, SwitchError
from switch.operations.commands.cases import app
from switch.storage.pool import connect
from tests.helpers.books import a_book, card_of, item, purchase, seed

pytestmark = pytest.mark.server

Run = Callable[..., Result]


class Shop:
    """What was sold: the day and the reference."""

    day: date
    rrn: str


@pytest.fixture
def sold(postgres_url: str) -> Shop:
    """A ledger with one purchase of five yuan."""
    shop = Shop()

    async def begin() -> None:
        async with await connect(postgres_url) as connection:
            shop.day = await seed(connection)
        async with a_book(postgres_url) as book:
            (told,) = await book.settle([item(purchase(500), since=shop.day)])
            assert isinstance(told, Outcome)
            shop.rrn = told.rrn

    asyncio.run(begin())
    return shop


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; errors of ours come out as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_DATABASE__SHARDS", "1")

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_a_case_goes_from_its_opening_to_its_end_and_everybody_sees_it(
    run: Run, sold: Shop, tmp_path: Path
) -> None:
    def document(*arguments: str) -> Any:
        return json.loads(run(*arguments, "--json").stdout)

    where = ("--date", sold.day.isoformat(), "--rrn", sold.rrn)
    about = ("--why", "the holder was abroad", "--actor", "li wei")
    opened = document("open", "--action", "04", *where, "--amount", "300", "--reason", "20", *about)
    assert (opened["case_no"], opened["state"], opened["waits"]) == (1, "NEW", True)
    with pytest.raises(ActionRefused, match="another person"):
        run("approve", "1", "--actor", "Li Wei")
    slip = tmp_path / "slip.txt"
    slip.write_text("signed")
    kept = document("evidence", "1", "--why", "the slip", "--file", str(slip), "--actor", "li wei")
    assert (tmp_path / "var" / "evidence" / kept["sm3"][:2] / kept["sm3"]).read_text() == "signed"
    assert "CHARGED_BACK" in run("approve", "1", "--actor", "wang fang").stdout
    (line,) = document("list", "--merchant", "993350054110001")
    assert (line["charged_fen"], line["asked_action"], line["overdue"]) == (300, "", False)
    assert document("list", "--member", "01020000") == []
    # Thirty days count from the business day, which is tomorrow's from 23:00 on.
    days = 30 + (sold.day - datetime.now(SHANGHAI).date()).days
    (due,) = document("due", "--days", f"{days}")
    assert (due["what"], due["amount_fen"], due["overdue"]) == ("answer 05", 300, False)
    assert document("due", "--days", f"{days - 1}") == []
    run("ask", "1", "--action", "05", "--reason", "50", "--why", "delivered", "--actor", "sun li")
    assert "deny" not in run("deny", "1", "--why", "no slip", "--actor", "wang fang").stdout
    assert document("close", "1", "--why", "the merchant accepts")["state"] == "CLOSED"
    shown = document("show", "1")
    assert [step["what"] for step in shown["steps"]] == [
        "ASKED",
        "EVIDENCE",
        "DONE",
        "ASKED",
        "DENIED",
        "CLOSED",
    ]
    assert shown["steps"][2]["moved"] == "300 fen from 2101/1 to 2001/110"
    assert [(one["rule"], one["actor"]) for one in shown["refused"]] == [("99", "Li Wei")]
    text = run("show", "1").stdout
    assert "refused (99)" in text
    assert "signed" not in text
    assert run("list", "--all", "--csv").stdout.splitlines()[1].startswith("1,")
    assert card_of(1).reveal() not in text + run("list", "--all", "--json").stdout
    assert document("lapse") == {"closed": 0}


def test_what_nobody_can_mean_is_said_so_and_what_is_overdue_ends_with_1(
    run: Run, sold: Shop, postgres_url: str
) -> None:
    where = ("--date", sold.day.isoformat(), "--rrn", sold.rrn, "--why", "w")
    for wrong, said in (
        (
            ("open", "--action", "04", "--reason", "20", "--why", "w"),
            "--date with --entry or --rrn, or --load",
        ),
        (("open", "--action", "04", "--reason", "50", *where), "for action 04 one of 10, 11"),
        (("open", "--action", "08", "--reason", "70", "--load", "9", "--why", "w"), "no such load"),
        (
            (
                "open",
                "--action",
                "04",
                "--reason",
                "20",
                "--date",
                "2020-01-01",
                "--entry",
                "7",
                "--why",
                "w",
            ),
            "no purchase",
        ),
        (("show", "77"), "no such case"),
        (("approve", "77"), "no such case"),
        (("accept-members",), "auto_accept is not set"),
    ):
        with pytest.raises(InputRefused, match=said):
            run(*wrong)
    assert run("open", "--action", "99", "--reason", "20", *where).exit_code == 2
    run("open", "--action", "01", "--reason", "11", *where, "--actor", "li wei")
    assert run("due").exit_code == 0

    async def wait() -> None:
        async with await connect(postgres_url) as connection:
            await connection.execute("UPDATE dispute_case SET asked_at = asked_at - interval '6 days'")

    asyncio.run(wait())
    late = run("due")
    assert late.exit_code == 1
    assert "1 overdue" in late.stdout
    assert "OVERDUE" in run("list").stdout


def test_numbers_that_no_column_holds_end_in_a_sentence(run: Run, sold: Shop) -> None:
    for huge in (str(2**63), str(10**30), str(-(10**30)), "0", "-1"):
        for arguments in (
            ("show", "--", huge),
            ("approve", "--actor", "wang fang", "--", huge),
            ("close", "--why", "enough", "--actor", "wang fang", "--", huge),
            ("evidence", "--why", "a slip", "--", huge),
            ("ask", "--action", "03", "--reason", "10", "--why", "x", "--", huge),
            *(
                ("open", "--action", "01", "--reason", "10", "--why", "x", *about)
                for about in (
                    ("--date", str(sold.day), "--entry", huge),
                    ("--date", str(sold.day), "--rrn", sold.rrn, "--amount", huge),
                    ("--load", huge),
                )
            ),
        ):
            with contextlib.suppress(SwitchError):
                assert run(*arguments).exit_code == 2, arguments
