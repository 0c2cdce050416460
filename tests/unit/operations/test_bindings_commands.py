"""`cardswitch bindings` against a real PostgreSQL and a real vault, as an operator uses it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from switch.operations.commands import bindings, registry
from tests.unit.registry.helpers import (
    BANK,
    OPERATOR,
    bank_card_of,
    bound,
    card,
    pan_of,
    run_import,
    write,
)

pytestmark = pytest.mark.server

Run = Callable[..., Result]
CARD, NUMBER = pan_of(1), bank_card_of(1)
BIND = (
    "bind", CARD, "--bank", BANK, "--agreement", "A-1", "--confirmed-at", "2024-03-15T10:30:00+08:00", "--reason", "asked for it",
)  # fmt: skip


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch bindings ...` on a city with a bank; `lines` is what comes by standard input."""
    key_file = tmp_path / "keyfile"
    key_file.write_bytes(os.urandom(64))
    key_file.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_VAULT__KEY_FILE", str(key_file))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        create_vault(DatabaseKeyStore(connection), UnlockSecret.key_file(key_file), rehearsal=False)
        run_import(connection, write(tmp_path, bound() | {"cards": [card(1), card(2)]}))

    def run_it(*arguments: str, lines: str = "") -> Result:
        result = CliRunner().invoke(bindings.app, arguments, input=lines, catch_exceptions=False)
        assert NUMBER not in result.output
        assert CARD not in result.output
        return result

    return run_it


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_card_is_bound_listed_and_unbound_with_masked_numbers_and_every_step_in_the_log(
    run: Run, postgres_url: str
) -> None:
    made = said(run(*BIND, "--day-limit-fen", "50000", "--actor", "li wei", "--json", lines=NUMBER + "\n"))
    assert made["bank_card"] == mask_pan(NUMBER)
    assert made["card"] == mask_pan(CARD)
    listed = said(run("list", CARD, "--json"))["bindings"]
    assert [(one["bank_card"], one["state"], one["day_limit_fen"], one["bound_by"]) for one in listed] == [
        (mask_pan(NUMBER), "ACTIVE", 50_000, "li wei")
    ]
    assert mask_pan(NUMBER) in run("list", "-", lines=CARD + "\n").stdout
    ended = ("unbind", str(made["binding"]), "--reason", "moved away", "--evidence", "ICBC letter 7")
    assert said(run(*ended, "--actor", "wang fang", "--json"))["state"] == "ENDED"
    assert [one["state"] for one in said(run("list", CARD, "--json"))["bindings"]] == ["ENDED"]
    with psycopg.connect(postgres_url) as connection:
        notes = connection.execute(
            "SELECT actor, change FROM registry_change WHERE subject = %s ORDER BY change_no",
            [f"binding {made['binding']}"],
        ).fetchall()
    assert [actor for actor, _ in notes] == ["li wei", "wang fang"]
    assert notes[0][1]["after"]["reason"] == "asked for it"
    assert (notes[1][1]["reason"], notes[1][1]["evidence"]) == ("moved away", "ICBC letter 7")
    with pytest.raises(InputRefused, match="has ended already"):
        run(*ended)
    with pytest.raises(InputRefused, match="has ended; bind by a new one"):
        run(*BIND, lines=NUMBER)


def test_the_same_again_changes_nothing(run: Run, postgres_url: str) -> None:
    first = said(run(*BIND, "--json", lines=NUMBER))
    assert said(run(*BIND, "--json", lines=NUMBER)) == first
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM registry_change WHERE subject LIKE 'binding %'"
        ).fetchone()
    assert row == (1,)


@pytest.mark.parametrize(
    ("changes", "number", "rule"),
    [
        ({"--bank": "99999999"}, NUMBER, "institution_id: names no institution"),
        ({"--bank": OPERATOR}, NUMBER, "institution_id: must be of role BANK"),
        ({"--agreement": "A 1"}, NUMBER, "agreement_id: must be 1 to 32"),
        ({"--confirmed-at": "yesterday"}, NUMBER, "confirmed_at: must be an instant"),
        ({"--confirmed-at": "2099-01-01T00:00:00Z"}, NUMBER, "confirmed_at: must not be in the future"),
        ({"--reason": " "}, NUMBER, "reason: 1 to"),
        ({}, NUMBER[:-1], "bank_card: the check digit"),
        ({}, "", "bank_card: is missing"),
        ({}, CARD, "bank_card: must not be the citizen card"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(
    run: Run, changes: dict[str, str], number: str, rule: str
) -> None:
    arguments = list(BIND)
    for option, value in changes.items():
        arguments[arguments.index(option) + 1] = value
    with pytest.raises(InputRefused, match=rule) as refused:
        run(*arguments, lines=number)
    assert NUMBER not in str(refused.value)
    assert said(run("list", CARD, "--json"))["bindings"] == []


def test_a_second_binding_of_a_card_is_not_its_default(run: Run) -> None:
    run(*BIND, lines=NUMBER)
    second = [word if word != "A-1" else "A-2" for word in BIND]
    with pytest.raises(InputRefused, match="two default bindings"):
        run(*second, lines=bank_card_of(2))
    assert said(run(*second, "--no-default", "--json", lines=bank_card_of(2)))["is_default"] is False


def test_a_binding_moved_by_hand_does_not_open(run: Run, postgres_url: str) -> None:
    run(*BIND, lines=NUMBER)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("ALTER TABLE binding DISABLE TRIGGER kept")
        connection.execute(
            "UPDATE binding b SET (shard, card_no) = (r.shard, r.card_no) FROM card_route r WHERE r.pan = %s",
            [pan_of(2)],
        )
    assert [one["bank_card"] for one in said(run("list", pan_of(2), "--json"))["bindings"]] == [
        "does not open"
    ]


def test_no_such_binding_is_said(run: Run) -> None:
    for number in ("1", "0", "99999999999999999999"):
        with pytest.raises(InputRefused, match="no such number"):
            run("unbind", number, "--reason", "x", "--evidence", "y")


def test_an_export_writes_bindings_with_the_cards_only_and_never_a_number(run: Run, tmp_path: Path) -> None:
    run(*BIND, lines=NUMBER)

    def export(*arguments: str) -> Result:
        return CliRunner().invoke(registry.app, ["export", *arguments], catch_exceptions=False)

    assert "bindings" not in export().stdout
    assert export("--kind", "bindings").exit_code == 2
    assert export("--with-cards", "--out", str(tmp_path / "all.json")).exit_code == 0
    written = (tmp_path / "all.json").read_text()
    assert [one["agreement_id"] for one in json.loads(written)["bindings"]] == ["A-1"]
    assert NUMBER not in written
    again = CliRunner().invoke(
        registry.app, ["import", str(tmp_path / "all.json"), "--json"], catch_exceptions=False
    )
    assert json.loads(again.stdout)["kinds"]["bindings"] == {"read": 1, "created": 0, "changed": 0}
