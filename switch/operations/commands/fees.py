"""`cardswitch fees …`: what merchants pay, how that changes, and what a change would come to. Meaning: docs/fees.md."""

import csv
import getpass
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from switch.clearing import fee_changes
from switch.clearing.fee_trial import Line, Shares, Trial, try_rules
from switch.clearing.fees import FeeRule
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.domain.transactions import AccountKind
from switch.operations.commands import subsidies
from switch.operations.commands.asking import NUMBER_MAX, ask
from switch.registry.import_files import Faults, Source, read_files

app = typer.Typer(no_args_is_help=True, help="Fee rules: shown, changed by two people, explained, tried.")
app.add_typer(subsidies.app, name="subsidies")

AMOUNT_MAX = 10**12  # fen, as terminals send them
SHOWN = 10  # merchants that gain and lose most
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Day = Annotated[
    datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="Clearing date; default: all.")
]


def _rules_of(file: Path) -> list[dict[str, Any]]:
    """The fee rules of a file in the form of a registry import, and nothing else in it."""
    faults = Faults()
    rows = list(read_files([Source(file)], faults))
    faults.refuse_if_any()
    if any(row.kind.name != "fee_rules" for row in rows):
        raise InputRefused(f"{file}: holds more than fee rules")
    return [dict(row.record) for row in rows]


def _document(value: object) -> str:
    return orjson.dumps(
        value, option=orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_SUBCLASS, default=str
    ).decode()


@app.command("list")
def list_(on: Day = None, as_json: Json = False) -> None:
    """The rules in force on a date, or all that there ever were."""
    rules = ask(lambda connection: fee_changes.stored_rules(connection, on.date() if on else None))
    if as_json:
        typer.echo(_document(rules))
        return
    for rule in rules:
        typer.echo(f"rule {rule['rule_no']}: {_words(rule)}")


@app.command()
def history(as_json: Json = False) -> None:
    """Proposals, the newest first, and what became of them."""
    proposals = ask(fee_changes.stored_proposals)
    if as_json:
        typer.echo(_document(proposals))
        return
    for one in proposals:
        typer.echo(
            f"proposal {one['proposal_no']}, {one['state'].lower()}: by {one['proposer']} on {one['proposed_at']:%Y-%m-%d %H:%M}, "
            f"{one['reason']!r}"
            + (
                f"; {one['decider']} on {one['decided_at']:%Y-%m-%d %H:%M} {one['note']}"
                if one["decider"]
                else ""
            )
        )
        for rule in one["rules"]:
            number = f" (rule {rule['rule_no']})" if rule["rule_no"] else ""
            typer.echo(f"  {rule['line']}. {_words(rule)}{number}")


@app.command()
def propose(file: Path, reason: Reason, actor: Actor = "", as_json: Json = False) -> None:
    """Propose the rules of a file (JSON or CSV as for `registry import`). Each begins after the open day; another person approves."""
    rules = _rules_of(file)
    number = ask(
        lambda connection: fee_changes.propose(
            connection, rules, actor=actor or getpass.getuser(), reason=reason
        )
    )
    if as_json:
        typer.echo(_document({"proposal_no": number, "rules": len(rules)}))
    else:
        typer.echo(
            f"proposal {number}: {len(rules)} rules; another person approves with `cardswitch fees approve {number}`"
        )


@app.command()
def approve(
    proposal_no: Annotated[int, typer.Argument(min=1, max=NUMBER_MAX)],
    note: str = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Let a proposal's rules be. A rule whose place one takes ends on the day before."""
    numbers = ask(
        lambda connection: fee_changes.approve(
            connection, proposal_no, actor=actor or getpass.getuser(), note=note
        )
    )
    if as_json:
        typer.echo(_document({"proposal_no": proposal_no, "rules": numbers}))
    else:
        typer.echo(f"proposal {proposal_no} approved: rules {', '.join(map(str, numbers))}")


@app.command()
def withdraw(
    proposal_no: Annotated[int, typer.Argument(min=1, max=NUMBER_MAX)], reason: Reason, actor: Actor = ""
) -> None:
    """End a proposal without a change."""
    ask(
        lambda connection: fee_changes.withdraw(
            connection, proposal_no, actor=actor or getpass.getuser(), reason=reason
        )
    )
    typer.echo(f"proposal {proposal_no} withdrawn")


@app.command()
def explain(
    merchant: Annotated[str, typer.Option(help="15 characters.")],
    kind: Annotated[str, typer.Option(help="ONLINE, BANK, MEDICAL or PURSE.")],
    amount_fen: Annotated[
        int, typer.Option(min=-AMOUNT_MAX, max=AMOUNT_MAX, help="Below zero for what is given back.")
    ],
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="Clearing date.")],
    as_json: Json = False,
) -> None:
    """Which rule counts for a transaction, why that one, and the arithmetic."""
    if kind.upper() not in AccountKind.__members__:
        raise InputRefused("kind: must be one of " + ", ".join(AccountKind.__members__))
    found = ask(
        lambda connection: fee_changes.explain(
            connection, merchant, AccountKind[kind.upper()], day.date(), amount_fen
        )
    )
    if as_json:
        typer.echo(
            _document(
                {
                    "rule_no": found.rule_no,
                    "frozen": found.frozen,
                    "terms": {**found.rule._asdict(), "weights": found.rule.weights._asdict()},
                    "split": found.split._asdict(),
                    "candidates": [
                        {
                            "rule_no": one.rule_no,
                            "scope": one.scope,
                            "valid_from": one.valid_from,
                            "valid_to": one.valid_to,
                            "not_because": why,
                        }
                        for one, why in found.candidates
                    ],
                }
            )
        )
        return
    for one, why in found.candidates:
        typer.echo(f"rule {one.rule_no}, {one.scope}, from {one.valid_from}: {why or 'counts'}")
    if found.frozen:
        typer.echo("The day is closed: these are the terms that it kept.")
    elif found.rule_no is None:
        typer.echo("No rule is in force: no fee.")
    for line in _arithmetic(found.rule, amount_fen):
        typer.echo(line)
    split = found.split
    typer.echo(
        f"fee {split.fee_fen} fen: issuer {split.issuer_fen}, switch {split.switch_fen}, acquirer {split.acquirer_fen}"
    )


def _arithmetic(rule: FeeRule, amount_fen: int) -> Iterable[str]:
    """The steps of fee_split, for people."""
    amount = abs(amount_fen)
    fee = (amount * rule.rate_ppm + 500_000) // 1_000_000
    yield f"{amount} fen x {rule.rate_ppm} ppm = {amount * rule.rate_ppm / 1_000_000:f}, rounded half up {fee}"
    for name, bound, chosen in (
        ("minimum", rule.minimum_fen if amount else 0, max),
        ("cap", rule.cap_fen, min),
        ("amount", amount, min),
    ):
        if bound is not None and chosen(fee, bound) != fee:
            fee = chosen(fee, bound)
            yield f"{name} {bound}: {fee}"
    if amount_fen < 0:
        yield "given back: the same with the sign turned"
    weights = rule.weights
    yield f"shares {weights.issuer}:{weights.switch}:{weights.acquirer}, cut to whole fen; the rest is the acquirer's"


@app.command("try")
def try_(
    file: Path,
    since: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First clearing date.")],
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last; default: the newest closed.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Every merchant and account kind, as CSV.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What closed days would have cost under the rules of a file, as if they had always held. Changes nothing."""
    rules = _rules_of(file)
    last = until.date() if until else date.max
    trial = ask(lambda connection: try_rules(connection, rules, since.date(), last))
    if csv_file is not None:
        with csv_file.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            first, *rest = [_flat(line) for line in trial.lines] or [{}]
            rows.writerow(first)
            rows.writerows(row.values() for row in (first, *rest) if row)
    if as_json:
        typer.echo(
            _document(
                {"days": trial.days, "unused": trial.unused, "lines": [_flat(line) for line in trial.lines]}
            )
        )
    else:
        _show(trial, Console(file=sys.stdout, width=120, highlight=False))


def _flat(line: Line) -> dict[str, Any]:
    shares = {
        f"{part}_{when}_fen": getattr(shares, f"{part}_fen")
        for when, shares in (("now", line.now), ("then", line.then))
        for part in ("fee", "issuer", "switch", "acquirer")
    }
    return {
        "merchant_id": line.merchant_id,
        "category": line.category,
        "account_kind": AccountKind(line.account_kind).name,
        "items": line.items,
        "volume_fen": line.volume_fen,
        **shares,
        "difference_fen": line.difference_fen,
        "without_rule_now": line.without_now,
        "without_rule_then": line.without_then,
    }


def _show(trial: Trial, console: Console) -> None:
    def total(pick: Callable[[Line], Shares], part: str) -> int:
        return sum(getattr(pick(line), part) for line in trial.lines)

    items, volume = sum(line.items for line in trial.lines), sum(line.volume_fen for line in trial.lines)
    console.print(
        f"{len(trial.days)} closed days, {trial.days[0]} to {trial.days[-1]}: {items:,} transactions, volume {yuan(volume)}"
    )
    table = Table()
    for title in ("CNY", "now", "then", "difference"):
        table.add_column(title, justify="left" if title == "CNY" else "right")
    for part in ("fee", "issuer", "switch", "acquirer"):
        now, then = total(lambda line: line.now, f"{part}_fen"), total(lambda line: line.then, f"{part}_fen")
        name = "fees" if part == "fee" else f"  of these {part}"
        table.add_row(name, yuan(now), yuan(then), yuan(then - now))
    console.print(table)
    by_merchant: dict[str, int] = {}
    for line in trial.lines:
        by_merchant[line.merchant_id] = by_merchant.get(line.merchant_id, 0) + line.difference_fen
    ranked = sorted(by_merchant.items(), key=lambda pair: (pair[1], pair[0]))
    for title, some in (
        ("would pay less", [pair for pair in ranked if pair[1] < 0][:SHOWN]),
        ("would pay more", [pair for pair in reversed(ranked) if pair[1] > 0][:SHOWN]),
    ):
        for merchant, fen in some:
            console.print(f"{title}: {merchant} {yuan(fen)}")
    without_now, without_then = (
        sum(line.without_now for line in trial.lines),
        sum(line.without_then for line in trial.lines),
    )
    console.print(f"without any rule: {without_now:,} transactions now, {without_then:,} then")
    for number in trial.unused:
        console.print(f"rule {number} of the file counted for nothing")


def _words(rule: dict[str, Any]) -> str:
    scope = rule["merchant_id"] or (f"category {rule['category']}" if rule["category"] else "all merchants")
    bounds = "".join(
        f", {name} {rule[column]} fen"
        for name, column in (("at least", "minimum_fen"), ("at most", "cap_fen"))
        if rule[column]
    )
    shares = ":".join(str(rule[f"weight_{part}"]) for part in ("issuer", "switch", "acquirer"))
    until = f" to {rule['valid_to']}" if rule["valid_to"] else ""
    return f"{scope}, {AccountKind(rule['account_kind']).name}: {rule['rate_ppm']} ppm{bounds}, shared {shares}, from {rule['valid_from']}{until}"
