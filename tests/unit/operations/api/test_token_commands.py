"""`cardswitch api token`, as an operator uses it."""

import json

import pytest
from typer.testing import CliRunner

from switch.domain.errors import InputRefused
from switch.operations.commands.api import app
from switch.storage.pool import connect_now
from tests.helpers.clearing_day import OTHER, PARTICIPANTS

pytestmark = pytest.mark.server


def test_a_token_is_shown_once_listed_without_it_and_ended(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_now(postgres_url) as connection:
        connection.execute(PARTICIPANTS.encode())
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    cli = CliRunner()
    made = cli.invoke(app, ["token", "add", "Second acquirer", "--role", f"member:{OTHER}", "--days", "30"])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert token.startswith("csw_1_")
    assert "It is kept nowhere" in made.stderr
    document = json.loads(cli.invoke(app, ["token", "add", "audit", "--role", "auditor", "--json"]).stdout)
    assert (document["number"], document["role"]) == (2, "auditor")
    listed = cli.invoke(app, ["token", "list"])
    assert "2 tokens" in listed.output
    assert f"member:{OTHER}" in listed.output
    assert token not in listed.output
    assert "holds no more" in cli.invoke(app, ["token", "revoke", "1"]).output
    states = [one["state"] for one in json.loads(cli.invoke(app, ["token", "list", "--json"]).stdout)]
    assert states == ["revoked", "valid"]
    for arguments, words in (
        (["revoke", "1"], "was revoked before"),
        (["revoke", "77"], "no such token"),
        (["add", "x", "--role", "god"], "role: regulator, operator, auditor"),
        (["add", "x", "--role", "auditor:99993310"], "auditor is nobody's in particular"),
        (["add", "x", "--role", "member:1"], "member:<8 digits>"),
        (["add", "x", "--role", "member:99999999"], "no institution has that number"),
        (["add", "x", "--role", "merchant:993350054119999"], "no merchant has that number"),
        (["add", " ", "--role", "auditor"], "name: 1 to 100 characters"),
    ):
        refused = cli.invoke(app, ["token", *arguments])
        assert isinstance(refused.exception, InputRefused), arguments
        assert words in str(refused.exception)
    assert cli.invoke(app, ["token", "add", "x", "--role", "auditor", "--days", "0"]).exit_code == 2
