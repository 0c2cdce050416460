"""`cardswitch fees subsidies …`: who makes good what fares were reduced by, and what days came to. Meaning: docs/fees.md."""

import csv
import getpass
import sys
from datetime import date, datetime
from typing import Annotated

import orjson
import typer

from switch.clearing import subsidies
from switch.clearing.subsidies import SubsidyRule
from switch.domain.money import yuan
from switch.operations.commands.asking import NUMBER_MAX, ask

app = typer.Typer(no_args_is_help=True, help="Subsidies of fares.")

Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Checker = Annotated[str, typer.Option(help="Another person, who has checked it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
_FORMATS = ["%Y-%m-%d"]


@app.command("set")
def set_(
    sponsor: Annotated[str, typer.Option(help="Institution that pays, 8 digits.")],
    discount: Annotated[str, typer.Option(help="TRANSFER or OTHER.")],
    rate_ppm: Annotated[int, typer.Option(min=1, max=1_000_000, help="Part of the discount, in ppm.")],
    begins: Annotated[datetime, typer.Option("--from", formats=_FORMATS, help="First clearing date.")],
    checker: Checker,
    reason: Reason,
    merchant: Annotated[str | None, typer.Option(help="Default: every merchant.")] = None,
    industry: Annotated[
        int | None, typer.Option(min=1, max=255, help="Code of the record; default: every.")
    ] = None,
    line: Annotated[str | None, typer.Option(help="Four hex digits; default: every line.")] = None,
    ride_cap_fen: Annotated[int | None, typer.Option(min=1, max=NUMBER_MAX, help="Of one ride.")] = None,
    day_cap_fen: Annotated[
        int | None, typer.Option(min=1, max=NUMBER_MAX, help="Of a merchant's day.")
    ] = None,
    ends: Annotated[datetime | None, typer.Option("--to", formats=_FORMATS, help="Last date.")] = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Let a sponsor make good a part of the discounts of rides, from a later clearing date on."""
    rule = SubsidyRule(
        sponsor,
        discount.upper(),
        rate_ppm,
        begins.date(),
        merchant,
        industry,
        line.upper() if line else None,
        ride_cap_fen,
        day_cap_fen,
        ends.date() if ends else None,
    )
    number = ask(
        lambda connection: subsidies.set_subsidy(
            connection, rule, actor=actor or getpass.getuser(), checker=checker, reason=reason
        )
    )
    typer.echo(
        orjson.dumps({"rule_no": number}).decode()
        if as_json
        else f"subsidy {number} from {begins:%Y-%m-%d} on"
    )


@app.command()
def end(
    rule_no: Annotated[int, typer.Argument(min=1, max=NUMBER_MAX)],
    last: Annotated[datetime, typer.Option("--to", formats=_FORMATS, help="Last clearing date.")],
    checker: Checker,
    reason: Reason,
    actor: Actor = "",
) -> None:
    """Let a rule end with a clearing date, the open one or a later."""
    ask(
        lambda connection: subsidies.end_subsidy(
            connection, rule_no, last.date(), actor=actor or getpass.getuser(), checker=checker, reason=reason
        )
    )
    typer.echo(f"subsidy {rule_no} ends with {last:%Y-%m-%d}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """All rules that there ever were."""
    rules = ask(subsidies.subsidy_rules)
    if as_json:
        typer.echo(orjson.dumps(rules).decode())
        return
    for rule in rules:
        typer.echo(" ".join(f"{name}={value}" for name, value in rule.items() if value is not None))


@app.command("of")
def of(
    since: Annotated[datetime, typer.Argument(formats=_FORMATS, help="First clearing date.")],
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Last; default: the same.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table for the sponsor, in fen.")] = False,
    as_json: Json = False,
) -> None:
    """What closed days came to, per sponsor, rule and merchant."""
    first, last = since.date(), (until or since).date()
    lines = ask(lambda connection: subsidies.subsidies(connection, first, last))
    if as_json:
        typer.echo(orjson.dumps(lines).decode())
    elif as_csv:
        rows = csv.writer(sys.stdout)
        rows.writerow(COLUMNS)
        rows.writerows([line[name] for name in COLUMNS] for line in lines)
    else:
        _show(lines, first, last)


COLUMNS = (
    "business_date",
    "sponsor_id",
    "rule_no",
    "merchant_id",
    "ride_count",
    "discount_fen",
    "asked_fen",
    "subsidy_fen",
)


def _show(lines: list[dict[str, object]], first: date, last: date) -> None:
    for line in lines:
        capped = "" if line["asked_fen"] == line["subsidy_fen"] else ", at the day's cap"
        typer.echo(
            f"{line['business_date']} {line['sponsor_id']} pays {line['merchant_id']} {yuan(int(str(line['subsidy_fen'])))}"
            f" of {yuan(int(str(line['discount_fen'])))} for {line['ride_count']} rides (rule {line['rule_no']}){capped}"
        )
    total = sum(int(str(line["subsidy_fen"])) for line in lines)
    typer.echo(f"{first} to {last}: {yuan(total)} together")
