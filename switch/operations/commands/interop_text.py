"""What `cardswitch interop` says to people."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from switch.clearing.centre_run import Ran
from switch.clearing.interop_desk import Figures
from switch.domain.calendar import SHANGHAI
from switch.domain.money import yuan


def ran(done: Ran, taken: Sequence[str]) -> str:
    """What a run of the centre did."""
    lines = [f"taken from ourselves: {name}" for name in taken]
    lines += [f"{day}: handed on to the cities of the cards" for day in done.forwarded]
    for one in done.decided:
        nets = ", ".join(f"{member} {yuan(net)}" for member, net in one.nets_fen.items()) or "nothing"
        lines.append(
            f"{one.clearing_date}: decided, {one.unanswered} records accepted without an answer; nets: {nets};"
            f" centre {yuan(one.centre_fen)}"
        )
    lines += [f"{day}: {member} has not paid {yuan(-net)}: blocked" for day, member, net in done.blocked]
    lines.append(f"{len(done.written)} files written")
    return "\n".join(lines)


def _when(instant: datetime) -> str:
    return f"{instant.astimezone(SHANGHAI):%Y-%m-%d %H:%M}"


def _late(line: Figures) -> str:
    return f"by {_when(line['by'])}{', OVER' if line['over'] else ''}"


_DUE: Mapping[str, tuple[str, Callable[[Figures], str]]] = {
    "answers_we_owe": (
        "Our DT for the centre",
        lambda line: (
            f"{line['name']}, {line['lines']:,} lines, "
            + (
                f"written by the close of {line['business_date']}"
                if line["business_date"]
                else f"{line['lines_done']:,} taken: run `cardswitch files take` again"
            )
        ),
    ),
    "answers_we_await": (
        "Answers that we wait for",
        lambda line: (
            f"{line['file']}, {line['records']:,} records, {yuan(line['amount_fen'])}, {line['held']:,} of them held as grey"
        ),
    ),
    "to_forward": (
        "To be handed on (DF)",
        lambda line: (
            f"{line['clearing_date']}, {line['files']:,} files, {line['records']:,} records, {yuan(line['amount_fen'])}"
        ),
    ),
    "answers_cities_owe": (
        "Answers of cities (DT)",
        lambda line: (
            f"{line['clearing_date']}, {line['member']}, {line['records']:,} records, {yuan(line['amount_fen'])}"
        ),
    ),
    "to_fund": (
        "Money of members",
        lambda line: f"{line['clearing_date']}, {line['member']} {yuan(line['net_fen'])}, {line['state']}",
    ),
}


def due(found: Figures) -> str:
    """What is due."""
    lines = [f"now {_when(found['now'])}, Asia/Shanghai"]
    for part, (title, words) in _DUE.items():
        if part in found:
            lines.append(f"{title}: {'' if found[part] else 'none'}".rstrip())
            lines += [f"  {words(line)}: {_late(line)}" for line in found[part]]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return _when(value) if isinstance(value, datetime) else str(value)


def way(found: Figures) -> str:
    """The way of a record or file: what is known, one field a line."""
    lines: list[str] = []
    for part, steps in found.items():
        if part == "file":
            lines.append(str(steps))
            continue
        for step in steps:
            lines.append(part.replace("_", " "))
            lines += [
                f"  {name.replace('_', ' '):16} {yuan(value) if name.endswith('_fen') else _plain(value)}"
                for name, value in step.items()
                if value is not None and value != ""
            ]
    return "\n".join(lines) if len(lines) > ("file" in found) else "nothing is known of it here"


def positions(lines: Sequence[Figures]) -> str:
    """Nets of a clearing date."""
    first = lines[0]
    said = [f"clearing date {first['clearing_date'] or ''}, settled on {first['settlement_date']}"]
    said += [
        f"  {line['member']}  issued {line['issuing_count']:>8,} {yuan(line['issuing_fen']):>16}  acquired {line['acquiring_count']:>8,}"
        f" {yuan(line['acquiring_fen']):>16}  fees {yuan(line['issuer_fee_fen'] + line['fees_paid_fen']):>12}"
        f"  net {yuan(line['net_fen']):>16}  {line['state']}"
        for line in lines
        if line["member"]
    ]
    return "\n".join([*said, f"  {first['centre']}  (the centre)  net {yuan(first['centre_fen'])}"])


def funded(member: str, day: date, net_fen: int, *, changed: bool) -> str:
    """Who has paid."""
    return f"{member} has paid {yuan(-net_fen)} for {day}" + ("" if changed else ": that was noted before")


def tariffs(lines: Sequence[Figures]) -> str:
    """What is charged between cities."""
    if not lines:
        return "no tariff: cities charge each other nothing"
    return "\n".join(
        f"from {line['valid_from']}: {line['rate_ppm']} ppm, at least {yuan(line['minimum_fen'])},"
        f" {'no cap' if line['cap_fen'] is None else 'at most ' + yuan(line['cap_fen'])}, issuer {line['weight_issuer']}"
        f" : centre {line['weight_centre']} : acquirer {line['weight_acquirer']}"
        for line in lines
    )
