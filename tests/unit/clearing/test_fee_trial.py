"""A dry run of rules says what closed days would have cost, to the fen, and leaves no trace."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from psycopg import AsyncConnection
from typer.testing import CliRunner

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.fee_trial import try_rules
from switch.clearing.fees import FeeRule, fee_split
from switch.domain.errors import InputRefused
from switch.operations.commands import fees
from tests.helpers.clearing_day import add_records
from tests.unit.clearing.test_fee_changes import GROCER, rule

pytestmark = pytest.mark.server
Pg = AsyncConnection[Any]
cli = typer.Typer()
cli.add_typer(fees.app, name="fees")


@pytest.fixture
async def closed(pg: Pg, day: date, terms: CloseTerms) -> date:
    await add_records(pg, day, 400_000_000, 2, [("10", 200), ("10", 300), ("04", 100), ("01", 50)])
    await close_day(pg, day, terms, "a tester")
    return day


async def everything(pg: Pg) -> list[tuple[Any, ...]]:
    cursor = await pg.execute(
        "SELECT relname, pg_stat_get_live_tuples(oid) FROM pg_class WHERE relname LIKE ANY(ARRAY['trial%', 'fee%', 'clearing%']) ORDER BY 1"
    )
    return await cursor.fetchall()


async def test_every_item_is_computed_again_under_the_rules_on_trial(pg: Pg, closed: date) -> None:
    on_trial = FeeRule(12_345, 3, 900)
    rules = [rule(closed, merchant_id=GROCER, rate_ppm=12_345, minimum_fen=3, cap_fen=900)]
    tried = await try_rules(pg, rules, closed, closed)
    cursor = await pg.execute(
        "SELECT merchant_id, account_kind, effect_fen, fee_fen FROM clearing_charge WHERE business_date = %s",
        (closed,),
    )
    items = await cursor.fetchall()
    assert sum(line.items for line in tried.lines) == len(items)
    for line in tried.lines:
        mine = [row for row in items if row[:2] == (line.merchant_id, line.account_kind)]
        splits = [fee_split(effect, on_trial) for _, _, effect, _ in mine]
        assert line.now.fee_fen == sum(fee for *_, fee in mine)
        if (line.merchant_id, line.account_kind) == (GROCER, 10):
            assert line.then == tuple(sum(split[part] for split in splits) for part in range(3))
            assert line.difference_fen != 0
        else:
            assert line.then == line.now
    assert tried.unused == ()


async def test_a_general_rule_leaves_alone_whoever_has_one_of_his_own(pg: Pg, closed: date) -> None:
    tried = await try_rules(pg, [rule(closed, rate_ppm=0), rule(closed, category="7777")], closed, date.max)
    free = {
        (line.merchant_id, line.account_kind)
        for line in tried.lines
        if line.now.fee_fen and not line.then.fee_fen
    }
    assert free == {("993350041110002", 10)}, (
        "of the others one has a rule for itself and one for its category"
    )
    assert tried.unused == (2,)


async def test_nothing_remains_of_a_trial(pg: Pg, closed: date) -> None:
    before = await everything(pg)
    await try_rules(pg, [rule(closed)], closed, closed)
    assert await everything(pg) == before


async def test_only_closed_days_and_one_rule_for_each_scope(pg: Pg, day: date) -> None:
    with pytest.raises(InputRefused, match="no closed day"):
        await try_rules(pg, [rule(day)], day, day)
    with pytest.raises(InputRefused, match="the same scope"):
        await try_rules(pg, [rule(day), rule(day, rate_ppm=1)], day, day)


def test_an_operator_tries_proposes_approves_and_has_it_explained(
    closed: date, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fee_rules-2027.csv"
    file.write_text("merchant_id,account_kind,rate_ppm,valid_from\n993350054110001,ONLINE,7000,2199-01-01\n")

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, ["fees", *words])
        assert done.exit_code == code, done.output
        return done.output

    told = run("try", str(file), "--since", closed.isoformat(), "--csv", "trial.csv")
    assert "1 closed days" in told
    assert "would pay more: 993350054110001" in told
    assert (
        len(Path("trial.csv").read_text().splitlines())
        == len(json.loads(run("try", str(file), "--since", closed.isoformat(), "--json"))["lines"]) + 1
    )
    assert "proposal 1: 1 rules" in run("propose", str(file), "--reason", "new terms", "--actor", "li wei")
    assert "rules 5" in run("approve", "1", "--actor", "wang fang")
    assert "7000 ppm" in run("list", "--on", "2199-01-01")
    assert "proposal 1, approved: by li wei" in run("history")
    explained = run(
        "explain", "--merchant", GROCER, "--kind", "ONLINE", "--amount-fen", "-10050", "--date", "2199-01-01"
    )
    assert "10050 fen x 7000 ppm = 70.350000, rounded half up 70" in explained
    assert "fee -70 fen: issuer -49, switch -7, acquirer -14" in explained
