"""`cardswitch card`, `cardswitch limits` and `cardswitch medical` against a real PostgreSQL, as an operator uses them."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.operations.commands import card, limits, medical
from switch.storage.pool import connect
from tests.helpers.books import card_of, seed

pytestmark = pytest.mark.server

Run = Callable[..., Result]
PAN = card_of(1).reveal()


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on a ledger with five holders; errors of ours come out as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_DATABASE__SHARDS", "1")

    async def begin() -> None:
        async with await connect(postgres_url) as connection:
            await seed(connection)

    asyncio.run(begin())

    def run(app: typer.Typer, *arguments: str, line: str = "") -> Result:
        result = CliRunner().invoke(app, arguments, input=line)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_a_card_is_lost_confirmed_and_lifted_and_its_number_is_never_printed(
    run: Run, postgres_url: str
) -> None:
    lost = run(card.app, "lose", "-", "--reason", "by telephone", "--actor", "ann", line=PAN + "\n")
    assert lost.exit_code == 0
    assert "purse" in lost.stdout
    shown = json.loads(run(card.app, "show", "1", "--json").stdout)
    assert (shown["state"], shown["card_no"], shown["report_lapsed"]) == ("LOSS_TEMP", 1, False)
    formal = json.loads(run(card.app, "lose", PAN, "--formal", "--json").stdout)
    assert (formal["before"], formal["state"], formal["lost_at"]) == (
        "LOSS_TEMP",
        "LOSS_FORMAL",
        shown["lost_at"],
    )
    with pytest.raises(InputRefused, match="identity document"):
        run(card.app, "lift", PAN, "--reason", "found")
    lifted = run(card.app, "lift", PAN, "--reason", "found", "--evidence", "identity document and card")
    assert "lifted" in lifted.stdout
    assert PAN not in lost.stdout + str(shown) + str(formal) + lifted.stdout
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(
            "SELECT actor, change ->> 'move' FROM registry_change ORDER BY change_no"
        ).fetchall()
    assert [row[1] for row in rows] == ["lose", "confirm", "lift"]
    assert rows[0][0] == "ann"
    assert not any(PAN in str(row) for row in rows)


@pytest.mark.parametrize("command", ["lift", "activate", "damage", "expire", "replace", "cancel", "close"])
def test_every_change_wants_a_reason(run: Run, command: str) -> None:
    assert run(card.app, command, PAN).exit_code == 2


def test_the_life_of_a_card_by_commands(run: Run) -> None:
    for command, state in (("damage", "DAMAGED"), ("cancel", "CANCEL_PENDING"), ("close", "CANCELLED")):
        answer: Any = json.loads(run(card.app, command, PAN, "--reason", "so", "--json").stdout)
        assert answer["state"] == state
    with pytest.raises(InputRefused, match="CANCELLED"):
        run(card.app, "activate", PAN, "--reason", "so")


def test_limits_are_set_shown_and_ended(run: Run, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute(
            "SELECT business_date FROM business_day WHERE begins_at <= now() AND now() < ends_at"
        ).fetchone()
    assert row is not None
    begins = (row[0] + timedelta(days=1)).isoformat()
    words = ("set", "--account", "ONLINE", "--day-fen", "50000", "--from", begins, "--reason", "council 12")
    assert json.loads(run(limits.app, *words, "--json").stdout) == {"rule_no": 1, "accounts": 5}
    assert "new for 0 accounts" in run(limits.app, *words).stdout
    (rule,) = json.loads(run(limits.app, "show", "--json").stdout)
    assert (rule["account_kind"], rule["day_fen"], rule["valid_from"]) == ("ONLINE", 50_000, begins)
    assert "day_fen=50000" in run(limits.app, "show").stdout
    assert run(limits.app, "end", "1", "--to", begins, "--reason", "council 13").exit_code == 0
    assert run(limits.app, "set", "--account", "PURSE", "--from", begins, "--reason", "x").exit_code == 2
    with pytest.raises(InputRefused, match="product"):
        run(limits.app, *words, "--product", "1x")


def test_rows_of_the_medical_policy_are_set_listed_and_ended(run: Run, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute(
            "SELECT business_date FROM business_day WHERE begins_at <= now() AND now() < ends_at"
        ).fetchone()
    assert row is not None
    begins = (row[0] + timedelta(days=1)).isoformat()
    words = ("set", "--category", "8062", "--own-pay-ppm", "300000", "--year-fen", "9000", "--from", begins)
    words += ("--reason", "council 12", "--actor", "ann")
    assert json.loads(run(medical.app, *words, "--json").stdout) == {"policy_no": 1}
    assert "medical policy 1: category 8062" in run(medical.app, *words).stdout
    (rule,) = json.loads(run(medical.app, "list", "--json").stdout)
    assert (rule["own_pay_ppm"], rule["year_fen"], rule["day_fen"], rule["splits"]) == (
        300_000,
        9_000,
        None,
        True,
    )
    assert "splits=True" in run(medical.app, "list").stdout
    assert run(medical.app, "end", "1", "--to", begins, "--reason", "council 13").exit_code == 0
    with pytest.raises(InputRefused, match="without a row"):
        run(medical.app, *words, "--refuse")
    refusing = ("set", "--category", "5912", "--refuse", "--from", begins)
    assert run(medical.app, *refusing).exit_code == 2  # no reason
    assert run(medical.app, *refusing, "--reason", "council 12").exit_code == 0
    with psycopg.connect(postgres_url) as connection:
        notes = connection.execute(
            "SELECT actor, subject, change ->> 'reason' FROM registry_change ORDER BY change_no"
        ).fetchall()
    assert notes[0] == ("ann", "medical policy 1", "council 12")
    assert [subject for _, subject, _ in notes] == [
        "medical policy 1",
        "medical policy 1",
        "medical policy 2",
    ]
