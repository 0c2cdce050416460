"""What `cardswitch reconcile` shows to people, and documents for programs where they differ from what is kept."""

from collections.abc import Iterator, Mapping
from typing import Any

from switch.clearing.files import FileStatus
from switch.clearing.received import Receipt
from switch.clearing.reconcile.desk import BUCKETS
from switch.clearing.reconcile.run import Compared
from switch.domain.money import yuan
from switch.ledger.card_states import shown

_ORDER = ("match", "undone", "shifted", "tolerated", "amount", "status", "short", "long", "duplicate")
_NAMES = {"short": "short 短款", "long": "long 長款"}


def receipt(one: Receipt) -> str:
    """A file that was taken, or why not."""
    if one.status != FileStatus.TAKEN:
        return f"{one.file}: refused ({one.status}): {one.reason}"
    before = ", before: nothing was done now" if one.repeated else ""
    missing = ", ".join(f"{number:03d}" for number in one.missing)
    behind = f"\n  missing before it: sequence {missing}" if missing else ""
    return f"{one.file}: {one.lines:,} lines, {yuan(one.total_fen)}, taken{before}{behind}"


def compared(one: Compared) -> dict[str, Any]:
    """A comparison as a document."""
    totals = {outcome: side._asdict() for outcome, side in one.totals.items()}
    return {**one._asdict(), "totals": totals}


def comparison(one: Mapping[str, Any]) -> str:
    """A comparison as a table."""
    again = ", as before" if one["repeated"] else ""
    lines = [
        f"{one['partner']} on {one['day']}, {one['file']}: comparison {one['run_no']}{again}",
        f"  {'':14} {'ours':>11} {'':>18} {'theirs':>11} {'':>18}",
    ]
    for outcome in _ORDER:
        side = one["totals"].get(outcome)
        if side is not None and (side["ours_count"] or side["theirs_count"] or outcome == "match"):
            lines.append(
                f"  {_NAMES.get(outcome, outcome):14} {side['ours_count']:>11,} {yuan(side['ours_fen']):>18}"
                f" {side['theirs_count']:>11,} {yuan(side['theirs_fen']):>18}"
            )
    states = ", ".join(f"{count} {state}" for state, count in one["states"].items())
    lines.append(f"  findings: {states or 'none'}")
    if one["left_open"]:
        lines.append(f"  of the day before {one['left_open']} did not come, and are open")
    return "\n".join(lines)


def difference(one: Mapping[str, Any]) -> str:
    """A difference on a line."""
    words = [one["differs"], one["terminal"] and f"terminal: {one['terminal']}"]
    words += [one["load"] and f"load {one['load']}", one["case"] and f"case {one['case']}"]
    return (
        f"{one['difference']:>8}  {one['partner']}  {one['business_date']}  {one['outcome']:9}  {one['state']:9}"
        f"  ours {yuan(one['ours_fen']):>12}  theirs {yuan(one['theirs_fen']):>12}  {one['card']}  {one['rrn']}"
        f"  {one['age_days']} d  {'; '.join(word for word in words if word)}"
    ).rstrip()


def expectation(one: Mapping[str, Any]) -> str:
    """A file that is owed, on a line."""
    carried = f", {one['carried']} items of the day before wait for it" if one["carried"] else ""
    return (
        f"{one['partner']}  {one['day']}  {one['state']:8}  due {shown(one['due_at'])[:16]}"
        f"  {one['file'] or 'no file'}{carried}"
    )


def ages(found: Mapping[str, Mapping[str, tuple[int, int]]]) -> Iterator[str]:
    """Open differences by age."""
    yield f"{'partner':10}" + "".join(f"{bucket + ' days':>28}" for bucket in BUCKETS)
    for partner, buckets in found.items():
        cells = (buckets[bucket] for bucket in BUCKETS)
        yield f"{partner:10}" + "".join(f"{count:>10,} {yuan(fen):>17}" for count, fen in cells)


def whole(one: Mapping[str, Any]) -> Iterator[str]:
    """A difference with everything that is known of it."""
    yield difference({**one, "terminal": ""})
    yield f"  terminal  {one['terminal'] or 'nothing'}"
    ours = one["ours"]
    yield "  ours      " + (
        ", ".join(f"{name} {value}" for name, value in ours.items()) if ours else "nothing"
    )
    for told in one["told"]:
        yield "  told      " + ", ".join(f"{name} {value}" for name, value in told.items())
    for line in one["theirs"]:
        yield "  theirs    " + ", ".join(f"{name} {value}" for name, value in line.items())
    if not one["theirs"]:
        yield "  theirs    nothing, or its lines are not kept any more"
    for run in one["comparisons"]:
        yield f"  found     comparison {run['run']} at {shown(run['at'])} by {run['actor']}, {run['file']}"
    for step in one["decisions"]:
        yield (
            f"  decided   {step['action']} at {shown(step['at'])} by {step['actor']}, checked by {step['checker']}:"
            f" {step['reason']} ({step['from']} to {step['to']})"
            + (f", bank entry {step['entry']}" if step["entry"] else "")
            + (f", although: {step['although']}" if step["although"] else "")
        )
