"""How the day went: for people (tables at a terminal, plain lines elsewhere) and as one JSON document."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from switch.domain.money import yuan
from switch.domain.transactions import AccountKind
from terminal_sim.city.day import Result
from terminal_sim.city.files import TITLES
from terminal_sim.city.homecoming import RECORD_SERIAL
from terminal_sim.city.loading import End
from terminal_sim.city.tally import NO_ANSWER, ORDER

FAULTS_SHOWN_MAX = 20
WIDTH_MIN = 110
RESULTS = {
    "10": "accepted",
    "00": "accepted after adjudication",
    "01": "TAC wrong",
    "02": "illegal data",
    "03": "duplicate",
    "04": "grey, pending",
    "05": "overdue",
    "06": "test record",
    "07": "time invalid",
    "08": "issuer unknown",
    "11": "foreign, provisional",
}
ANSWERS = {
    "00": "approved",
    "12": "not applicable",
    "14": "no such card",
    "21": "not handed over",
    "25": "unknown original",
    "41": "lost card",
    "51": "not enough money",
    "54": "expired",
    "55": "wrong PIN",
    "57": "no such account",
    "61": "above a limit",
    "62": "replaced",
    "64": "more than the original",
    "68": "nobody knows, undone",
    "75": "PIN blocked",
    "91": "bank away",
    NO_ANSWER: "no answer",
}
_RECORD = "record "


def _kinds(result: Result) -> list[str]:
    return [kind for kind in ORDER if result.tally.count(kind)]


def _answers(result: Result, kind: str) -> dict[str, int]:
    found = result.tally.answers[kind]
    return dict(sorted(found.items(), key=lambda item: (item[0] != "00", -item[1])))


def _records(result: Result) -> dict[str, int]:
    told = result.street.happenings
    return {key.removeprefix(_RECORD): told[key] for key in sorted(told) if _is_record(key)}


def _is_record(key: str) -> bool:
    return key.startswith(_RECORD) and len(key) == len(_RECORD) + 2


def document(result: Result) -> dict[str, Any]:
    """Everything of the summary for programs; amounts in fen, times in seconds and milliseconds."""
    files = result.files
    return {
        "good": result.good,
        "seed": result.plan.seed,
        "business_date": str(result.day),
        "elapsed_s": round(result.elapsed_s, 2),
        "phases_s": {name: round(seconds, 2) for name, seconds in result.phases.items()},
        "requests_per_s": round(result.requests_per_s, 1),
        "answers": {kind: _answers(result, kind) for kind in _kinds(result)},
        "latency_ms": {
            kind: {"measured": found.measured, "p50": round(found.p50_ms, 2), "p99": round(found.p99_ms, 2)}
            for kind in _kinds(result)
            if (found := result.tally.latency(kind)) is not None
        },
        "offline_records": _records(result),
        "happenings": {k: v for k, v in result.street.happenings.items() if not _is_record(k)},
        "bad_lines": result.lines,
        "loads": result.hall.document() if result.hall is not None else None,
        "outage": result.outage.document() if result.outage is not None else None,
        "depot_rush": result.rush.document() if result.rush is not None else None,
        "bank": result.reckoning.document() if result.reckoning is not None else None,
        "merchants": [
            {
                "merchant_id": merchant.merchant_id,
                "name": merchant.trade.name,
                "items": figures.items,
                "sales_fen": figures.sales_fen,
                "back_fen": figures.back_fen,
                "fee_fen": figures.fee_fen,
                "net_fen": figures.net_fen,
            }
            for merchant in result.plan.everybody
            if (figures := result.merchants.get(merchant.merchant_id)) is not None
        ],
        "settlement_date": result.close.get("settlement_date"),
        "files": {
            "folder": str(files.folder) if files is not None else None,
            "list": [fact._asdict() for fact in files.facts] if files is not None else [],
        },
        "second_day": result.following.document() if result.following is not None else None,
        "audit": result.audit,
        "balances_compared": result.balances_compared,
        "checks": result.books.checks,
        "faults": result.books.faults,
        "faults_unsaid": result.books.faults_unsaid,
    }


class _Page:
    """Tables where somebody looks, columns of plain text elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def table(self, title: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> None:
        """columns: heading, and whether it is a number."""
        style = box.SIMPLE_HEAD if self._console.is_terminal else None
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=style,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for heading, number in columns:
            table.add_column(
                heading, justify="right" if number else "left", no_wrap=not heading.endswith("…")
            )
        for row in rows:
            table.add_row(*row)
        self._console.print()
        self._console.print(table)

    def line(self, text: str = "", style: str = "") -> None:
        self._console.print(text, style=style or None)


def show(result: Result, console: Console) -> None:
    """The whole summary."""
    console.width = max(console.width, WIDTH_MIN)
    page = _Page(console)
    page.line()
    page.line(f"One business day of the virtual city: {result.day} (seed {result.plan.seed})", "bold")
    _show_wire(page, result)
    _show_rush(page, result)
    _show_stories(page, result)
    _show_loads(page, result)
    _show_bank(page, result)
    _show_money(page, result)
    _show_second_day(page, result)
    _show_files(page, result)
    _show_verdict(page, result)


def _show_wire(page: _Page, result: Result) -> None:
    rows = []
    for kind in _kinds(result):
        found = result.tally.latency(kind)
        answers = ", ".join(
            f"{code} {ANSWERS.get(code, '')} {count:,}".replace("  ", " ")
            for code, count in _answers(result, kind).items()
        )
        rows.append(
            (
                kind,
                f"{result.tally.count(kind):,}",
                f"{found.p50_ms:.1f}" if found else "",
                f"{found.p99_ms:.1f}" if found else "",
                answers,
            )
        )
    columns = [
        ("on the wire", False),
        ("sent", True),
        ("p50 ms", True),
        ("p99 ms", True),
        ("answers…", False),
    ]
    page.table("What the terminals sent, and how it was answered", columns, rows)
    tills = len(result.plan.tills)
    page.line(
        f"{result.requests_per_s:,.0f} requests/s while {tills} tills were selling, one customer each; city and switch share "
        "this machine"
    )


def _show_stories(page: _Page, result: Result) -> None:
    records = _records(result)
    page.table(
        "Offline records from buses and gates, by result of the upload",
        [("result", False), ("meaning", False), ("records", True)],
        [(code, RESULTS.get(code, ""), f"{count:,}") for code, count in records.items()],
    )
    offline = result.close.get("offline", {})
    page.line(
        f"adjudicated at the close: {offline.get('adjusted', 0)} grey records paid, "
        f"{result.close_greys_refused} refused, {offline.get('pending', 0)} records wait"
    )
    told = {key: count for key, count in result.street.happenings.items() if not _is_record(key)}
    done = {key: count for key, count in result.lines.items() if not key.endswith("frames")}
    told |= {f"bad lines: messages {key}": count for key, count in sorted(done.items())}
    page.table("What else happened", [("", False), ("times", True)], [(k, f"{v:,}") for k, v in told.items()])


def _show_rush(page: _Page, result: Result) -> None:
    rush = result.rush
    if rush is None:
        return
    page.line()
    page.line("The depot rush", "bold")
    page.line(
        f"{rush.over_mqtt:,} records came over MQTT in {rush.batches} batches, which were published {rush.published} times: "
        f"some twice, and again where a receipt was lost ({rush.receipts_lost}); {rush.over_tcp:,} came over TCP: {rush.records_per_s:,.0f} records/s together. A batch had its "
        f"receipt after {rush.receipt_ms(50):.0f} ms, at p99 {rush.receipt_ms(99):.0f} ms."
    )
    for bus in rush.away:
        page.line(
            f"not home: {bus.vehicle.terminal.terminal_id}, bus {bus.vehicle.number} of line {bus.vehicle.line}; {len(bus.records)} rides "
            "are still with it"
        )
    lost = [
        f"{owner} {_range(*hole)}"
        for (counter, owner), found in sorted(rush.missing.items())
        for hole in found
        if counter == RECORD_SERIAL
    ]
    psams = [
        hole for (counter, _), found in rush.missing.items() for hole in found if counter != RECORD_SERIAL
    ]
    page.line(
        f"missing: records {', '.join(lost) or 'none'}, of which {rush.damaged} came damaged; and {len(psams)} holes in the serials of PSAMs"
    )
    page.line(
        f"through the gates: {rush.trips.get('complete', 0):,} trips complete, {rush.trips.get('incomplete', 0):,} at the maximum fare, "
        f"{rush.trips.get('open', 0):,} not out yet"
    )


def _range(first: int, last: int) -> str:
    return f"#{first}" if first == last else f"#{first}-{last}"


def _show_loads(page: _Page, result: Result) -> None:
    hall = result.hall
    if hall is None:
        return
    ends = hall.ends
    declined, asked = ends[End.DECLINED], len(hall.loads)
    everything = [end for end in End if end is not End.DECLINED]
    funnel = [
        ("asked", asked, hall.fen(*End)),
        ("authorised: paid by its source, the card not yet told", asked - declined, hall.fen(*everything)),
        ("  confirmed by the card", ends[End.CONFIRMED], hall.fen(End.CONFIRMED)),
        ("  reversed: the answer was lost", ends[End.REVERSED], hall.fen(End.REVERSED)),
        (
            "  in suspense: the card was torn away, and nobody knew",
            hall.ever_in_suspense,
            hall.fen(End.LOADED, End.RETURNED, End.SUSPENSE),
        ),
        ("    the card came again and had the money", ends[End.LOADED], hall.fen(End.LOADED)),
        ("    it came again and had not: given back", ends[End.RETURNED], hall.fen(End.RETURNED)),
        ("    still awaited", ends[End.SUSPENSE], hall.fen(End.SUSPENSE)),
        ("declined: too little money, or no bank to ask", declined, hall.fen(End.DECLINED)),
    ]
    page.table(
        f"Cards loaded at {len(result.plan.kiosks)} kiosks, and what became of it",
        [("loads", False), ("times", True), ("CNY", True)],
        [(what, f"{count:,}", yuan(fen)) for what, count, fen in funnel],
    )
    page.line(
        f"besides, cash was paid into online accounts {hall.top_ups:,} times, {yuan(hall.top_ups_fen)} together"
    )
    if result.reckoning is not None:
        same = result.reckoning.cash_fen == hall.cash_fen
        page.line(
            f"in the kiosks' drawers lie {yuan(hall.cash_fen)}; account 1002 says {yuan(result.reckoning.cash_fen)}",
            "" if same else "bold red",
        )


def _show_bank(page: _Page, result: Result) -> None:
    outage, bank = result.outage, result.reckoning
    if outage is None or bank is None:
        return
    page.line()
    page.line("The bank", "bold")
    page.line(
        f"{bank.purchases:,} purchases were paid by bank card. In the middle of the day the bank died, for {outage.away_s:.1f} s: "
        f"{outage.refused} customers were refused (91), {outage.trusted} were trusted in its place, for {yuan(outage.trusted_fen)} "
        f"together, and {outage.unknown} purchases and {outage.unknown_loads} loads hung in the air (68) and were undone. "
        f"{outage.others} people paid from their own accounts meanwhile, as if nothing had happened."
    )
    page.line(
        f"When it came back it was told {outage.owed} things within {outage.told_s:.2f} s. At the end of the day its own books say "
        f"that it owes {yuan(bank.moved_fen)}, and the switch's say {yuan(bank.owed_fen)}"
        + (": the same, to the fen." if bank.agrees else ". THEY DIFFER."),
        "" if bank.agrees else "bold red",
    )


def _show_money(page: _Page, result: Result) -> None:
    rows = []
    total = [0, 0, 0, 0, 0]
    for merchant in result.plan.everybody:
        day = result.merchants.get(merchant.merchant_id)
        if day is None:
            continue
        figures = (day.items, day.sales_fen, day.back_fen, day.fee_fen, day.net_fen)
        total = [one + other for one, other in zip(total, figures, strict=True)]
        rows.append((merchant.trade.name, f"{day.items:,}", *(yuan(fen) for fen in figures[1:])))
    rows.append(("together", f"{total[0]:,}", *(yuan(fen) for fen in total[1:])))
    headings = ("items", "sales", "back", "fees", "net")
    page.table(
        f"The day's money by merchant, CNY, from their files; it moves on {result.close.get('settlement_date')} (T+1)",
        [("merchant", False), *((heading, True) for heading in headings)],
        rows,
    )


def _show_second_day(page: _Page, result: Result) -> None:
    found = result.following
    if found is None:
        return
    page.line()
    page.line(f"The day after, {found.day}", "bold")
    page.line(
        f"A holder did not know a purchase: case {found.case_no}, opened by one person and decided by another, gave {yuan(found.disputed_fen)} back, and its "
        f"merchant got {yuan(found.disputed_fee_fen)} of fee back. Of the neighbour city's cards {found.foreign.get('10', 0)} rides were accepted by that city and "
        f"paid, {found.foreign.get('01', 0)} was refused."
    )
    page.line(
        f"{found.sent} files of both days went to the bank over SFTP; it acknowledged {found.acknowledged}. On {found.settlement_date} money moves: "
        f"{found.payouts} payouts, {yuan(found.paid_fen)}, ordered as pain.001 and paid, says the custody bank's camt.054; {yuan(found.staying_fen)} of "
        f"{found.staying} stay, mostly since their accounts are not told yet."
    )
    page.line(
        f"The disputed purchase, {found.proven_rrn}, proven to somebody who has two files and no database:"
    )
    for line in found.proven:
        page.line(f"  {line}")


def _show_files(page: _Page, result: Result) -> None:
    if result.files is None:
        return
    page.table(
        f"Files in {_short(result.files.folder)}",
        [("name", False), ("content", False), ("lines", True), ("bytes", True), ("", False)],
        [
            (
                fact.name,
                TITLES.get(fact.name[:2], ""),
                f"{fact.lines:,}",
                f"{fact.size_bytes:,}",
                fact.fault or "whole",
            )
            for fact in result.files.facts
        ],
    )


def _short(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def _show_verdict(page: _Page, result: Result) -> None:
    totals = result.audit.get("totals", {})
    checks = result.audit.get("checks", [])
    clean = bool(result.audit.get("clean"))
    page.line()
    if totals:
        page.line(
            f"audit {'clean' if clean else 'FAILED'}: {len(checks)} checks, {totals['postings']:,} postings, "
            f"debits {yuan(totals['debits_fen'])}, credits {yuan(totals['credits_fen'])}, "
            f"zero-sum {yuan(totals['zero_sum_fen'])}",
            "" if clean else "bold red",
        )
    for check in checks:
        if not check["ok"]:
            page.line(f"  {check['name']}: {check['says']} ({check['faults']} places)")
    accounts = sum(account is not AccountKind.PURSE for _, account in result.books.balances)
    page.line(
        f"city: {result.books.checks:,} comparisons of what terminals believe with what the switch says, "
        f"{result.balances_compared:,} of {accounts:,} balances among them"
    )
    for fault in result.books.faults[:FAULTS_SHOWN_MAX]:
        page.line(f"  DIFFERS  {fault}", "red")
    unsaid = len(result.books.faults) - FAULTS_SHOWN_MAX + result.books.faults_unsaid
    if unsaid > 0:
        page.line(f"  and {unsaid:,} more")
    if result.good:
        page.line(f"all as expected, in {result.elapsed_s:.1f} s", "bold green")
    else:
        page.line(f"NOT as expected; {result.elapsed_s:.1f} s", "bold red")
