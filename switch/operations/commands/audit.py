"""`cardswitch audit`: the independent recomputation, for people and for programs."""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer

from switch.domain.money import yuan
from switch.operations.audit import Report, Totals, Verdict
from switch.operations.audit import audit as run_audit
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect_now


def audit(
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date",
            formats=["%Y-%m-%d", "%Y%m%d"],
            help="Entries, records and files of one business date only; sums are always over all days.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Compute everything that is stored again from the journal, and name each place that differs. Changes nothing.

    Runs while the switch serves. Exit 1 when something differs.
    """
    settings = load_settings()
    with open_database(settings) as url, connect_now(url) as connection:
        report = run_audit(
            connection,
            settings.clearing_folder,
            None if day is None else day.date(),
            tell=(lambda _verdict: None) if as_json else _tell,
            progress=_progress(),
        )
    if as_json:
        typer.echo(orjson.dumps(document(report), option=orjson.OPT_INDENT_2).decode())
    else:
        for line in summary(report):
            typer.echo(line)
    if not report.good:
        raise typer.Exit(1)


def _progress() -> Callable[[str], None]:
    """What is being done, on one line of standard error; nothing where nobody looks."""
    if not sys.stderr.isatty():
        return lambda _text: None

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}\r")
        sys.stderr.flush()

    return show


def _tell(verdict: Verdict) -> None:
    for line in lines_of(verdict):
        typer.echo(line)


def lines_of(verdict: Verdict) -> list[str]:
    """One line for a check, and one for each place that it names."""
    if verdict.good:
        return [
            f"ok    {verdict.name:<24} {verdict.rows:>11,} rows  {verdict.seconds:6.1f} s  {verdict.says}"
        ]
    lines = [f"FAIL  {verdict.name:<24} {verdict.fault_count:>11,} places: {verdict.says}"]
    lines += [
        f"      {place.table}: {place.key}: expected {place.expected}; found {place.found}"
        for place in verdict.places
    ]
    if verdict.fault_count > len(verdict.places):
        lines.append(f"      and {verdict.fault_count - len(verdict.places):,} more")
    return lines


def summary(report: Report) -> list[str]:
    """The totals and the verdict. Amounts in yuan."""
    totals = report.totals
    moved = (
        f"postings {totals.postings:,}  debits {yuan(totals.debits_fen)}  credits {yuan(totals.credits_fen)}"
    )
    lines = [
        f"{moved}  zero-sum {yuan(totals.zero_sum_fen)}",
        f"held {yuan(totals.held_fen)}  owed {yuan(totals.owed_fen)}  cover ratio {_cover(totals)}",
    ]
    lines += [
        f"note: merchant {merchant} is below zero after refunds: {yuan(fen)}"
        for merchant, fen in totals.negative_merchants
    ]
    failed = [verdict.name for verdict in report.verdicts if not verdict.good]
    if failed:
        lines.append(f"audit FAILED: {len(failed)} of {len(report.verdicts)} checks: {', '.join(failed)}")
    else:
        lines.append(f"audit clean: {len(report.verdicts)} checks")
    return lines


def _cover(totals: Totals) -> str:
    """Held over owed in per cent, cut and never rounded up."""
    if totals.owed_fen <= 0:
        return "100.00 %"
    parts = totals.held_fen * 10_000 // totals.owed_fen
    return f"{parts // 100}.{parts % 100:02d} %"


def document(report: Report) -> dict[str, Any]:
    """The whole report for programs; amounts in fen."""
    totals = report.totals
    return {
        "date": report.day,
        "clean": report.good,
        "checks": [
            {
                "name": verdict.name,
                "says": verdict.says,
                "ok": verdict.good,
                "rows": verdict.rows,
                "faults": verdict.fault_count,
                "seconds": round(verdict.seconds, 3),
                "places": [place._asdict() for place in verdict.places],
            }
            for verdict in report.verdicts
        ],
        "totals": {
            "postings": totals.postings,
            "debits_fen": totals.debits_fen,
            "credits_fen": totals.credits_fen,
            "zero_sum_fen": totals.zero_sum_fen,
            "held_fen": totals.held_fen,
            "owed_fen": totals.owed_fen,
            "balances_fen": {str(code): fen for code, fen in totals.codes},
            "merchants_below_zero_fen": dict(totals.negative_merchants),
        },
    }
