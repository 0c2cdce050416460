"""What `cardswitch purse` says to people, line by line. Cards masked."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from switch.domain.calendar import SHANGHAI
from switch.domain.identifiers import mask_pan
from switch.domain.money import yuan
from switch.operations.commands.purse_documents import damaged_of
from switch.purse.alarms import KINDS, Alarm, Case, Evidence
from switch.purse.card_view import CardView, state_name
from switch.purse.chain import Link, Step, Verdict
from switch.purse.completeness import LISTED_MAX, Counter, Gap, Missing
from switch.purse.device_view import DeviceView

_LINKS = {
    Verdict.FOLLOWS: "",
    Verdict.LOADED: "after load {}",
    Verdict.LOAD_OPEN: "after load {}, which nobody has confirmed",
    Verdict.LOAD_RETURNED: "BREAK: after load {}, whose money went back",
    Verdict.BREAK: "BREAK",
}


def _at(instant: datetime) -> str:
    return f"{instant.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"


def _age(since: datetime, now: datetime) -> str:
    age = max(now - since, timedelta())
    return f"{age.days} d" if age.days else f"{age.seconds // 3600} h {age.seconds % 3600 // 60} min"


def _range(gap: Gap) -> str:
    return str(gap.lowest) if gap.size == 1 else f"{gap.lowest} to {gap.highest}"


def _gap(gap: Gap, now: datetime) -> str:
    if gap.closed_at is not None:
        return f"{_range(gap):>24}  closed after {_age(gap.opened_at, gap.closed_at)}, by late records"
    told = ", given up" if gap.given_up else ", reported" if gap.reported_at is not None else ""
    count = f", {gap.size} numbers" if gap.size > 1 else ""
    return f"{_range(gap):>24}  missing for {_age(gap.opened_at, now)}{count}{told}"


def _counter(one: Counter, name: str) -> str:
    return (
        f"{one.kind.words} {name}: {one.first_no} to {one.next_no - 1}, expected {one.expected},"
        f" received {one.received}, missing {one.missing}"
    )


def _link(step: Link | None) -> str:
    if step is None:
        return ""
    words = _LINKS[step.verdict].format(", ".join(str(load.load_no) for load in step.loads))
    if step.verdict in (Verdict.FOLLOWS, Verdict.LOADED):
        return words
    return f"{words} (expected {yuan(step.expected_fen)}, found {yuan(step.found_fen)})"


def _chain(view: CardView, steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        record = step.record
        if step.missing:
            yield f"  {'':>6}  {step.missing} records have not come"
        entry_no, day = view.entries[record.atc]
        yield (
            f"  {record.atc:>6}  {yuan(record.balance_fen):>12} - {yuan(record.amount_fen):>10} = {yuan(record.left_fen):>12}"
            f"  entry {entry_no} of {day}  {_link(step.link)}"
        ).rstrip()


def card(view: CardView, last: int) -> Iterator[str]:
    """A card's shadow. last: how many records at the end of the chain are shown, besides those that do not follow."""
    figures, place = view.figures, view.place
    known = "" if place.registered else ", not in the registry"
    yield f"card {mask_pan(place.pan)}, card_no {place.card_no}{known}"
    below = "  BELOW ZERO: a load is late, or the card is not right" if figures.balance_fen < 0 else ""
    yield (
        f"shadow balance {yuan(figures.balance_fen)} = loaded {yuan(figures.loaded_fen)} - spent {yuan(figures.spent_fen)}{below}"
    )
    yield f"expected next: offline ATC {figures.next_atc}, online ATC {figures.online_atc}"
    if view.counter is not None:
        yield _counter(view.counter, "")
    if view.suspected_clone:
        yield "CLONE SUSPECTED: two good records have had one counter"
    now = datetime.now(SHANGHAI)
    for gap in view.gaps:
        yield _gap(gap, now)
    shown = view.steps[-last:] if last else []
    odd = [
        step
        for step in view.steps[: len(view.steps) - len(shown)]
        if step.missing or (step.link and step.link.verdict is not Verdict.FOLLOWS)
    ]
    if view.steps:
        yield f"chain: {len(view.steps)} records, {len(view.breaks)} steps that need a load or an explanation"
    yield from _chain(view, [*odd, *shown])
    for grey in view.greys:
        end = f"{grey.verdict} on {grey.decided_on}: " if grey.verdict else ""
        trace = grey.trace
        yield (
            f"grey record, entry {grey.entry_no} of {grey.business_date}: ATC {trace.atc},"
            f" {yuan(trace.amount_fen)} of {yuan(trace.balance_fen)}; {end}{grey.evidence}"
        )
    for line in view.loads:
        load = line.load
        yield (
            f"load {load.load_no} of {_at(line.at)}: online ATC {load.online_atc}, {yuan(load.amount_fen)} onto"
            f" {yuan(load.balance_fen)}, {state_name(load.state)} ({line.reason})"
        )
    for one in view.alarms:
        yield _alarm(one)


def _alarm(one: Alarm) -> str:
    card_shown = f"  {mask_pan(one.card)}" if one.card else ""
    told = f"  [{one.actor}, {_at(one.noted_at)}: {one.reason}]" if one.actor and one.noted_at else ""
    state = " " if one.acknowledged else "!"
    return f"{one.alarm_no:>8} {state} {_at(one.at)}  {one.kind:20}{card_shown}  {one.detail}{told}"


def alarms(found: Sequence[Alarm], limit: int) -> Iterator[str]:
    """The work list."""
    for one in found:
        yield _alarm(one)
    more = ", perhaps more: --limit" if len(found) == limit else ""
    yield f"{len(found)} alarms{more}"


def _evidence(title: str, one: Evidence) -> Iterator[str]:
    yield f"{title}: entry {one.entry_no} of {one.business_date}, result {one.result}"
    if one.card is not None and one.amount_fen is not None and one.balance_fen is not None:
        yield f"    card {mask_pan(one.card)}, ATC {one.atc}, {yuan(one.amount_fen)} of {yuan(one.balance_fen)}, TAC {one.tac}"
        yield f"    PSAM {one.psam_no}, serial {one.psam_serial}; made at {one.happened_at} by the terminal's clock"
    yield (
        f"    brought by terminal {one.terminal_id} of merchant {one.merchant_id}, record serial {one.record_serial},"
        f" received {_at(one.received_at)}"
    )


def case(one: Case) -> Iterator[str]:
    """An alarm with its evidence."""
    yield f"alarm {one.alarm.alarm_no} of {_at(one.alarm.at)}: {one.alarm.kind}, {KINDS.get(one.alarm.kind, '')}"
    yield f"    {one.alarm.detail}"
    if one.gap:
        yield f"    {one.gap}"
    if one.record is not None:
        yield from _evidence("this record", one.record)
    if one.other is not None:
        yield from _evidence("the other", one.other)
        first, second = one.other.happened_at, one.record.happened_at if one.record else None
        if first is not None and second is not None:
            yield f"    {abs(second - first)} between them, by the terminals' clocks"
    if one.step is not None:
        yield f"    now: {_link(one.step) or 'the balances follow'}"
    for note in one.notes:
        word = "acknowledged" if note.acknowledged else "opened again"
        yield f"{word} by {note.actor} at {_at(note.at)}: {note.reason}"
    if not one.alarm.acknowledged:
        yield f"open: cardswitch purse alarms acknowledge {one.alarm.alarm_no} --reason ..."


def device(view: DeviceView) -> Iterator[str]:
    """A terminal or PSAM."""
    place = f", {view.place}" if view.place else ""
    yield f"{view.what} {view.owner.name} of merchant {view.owner.merchant_id}{place}"
    if not view.counters:
        yield "nothing has come yet"
    for one, name in zip(view.counters, view.names, strict=True):
        yield _counter(one, name)
        for gap in view.gaps:
            if (gap.kind, gap.owner) == (one.kind, one.owner):
                yield _gap(gap, view.now)
    for piece in view.damaged:
        yield f"damaged: entry {piece.entry_no} says to be record {piece.serial}, {piece.reason}; in quarantine"
    for alarm in view.alarms:
        state = " " if alarm.acknowledged else "!"
        yield f"{alarm.alarm_no:>8} {state} {_at(alarm.at)}  {alarm.kind:20}  {alarm.detail}"


def missing(found: Missing) -> Iterator[str]:
    """What has not come."""
    for one in found.counters:
        owner = found.owner(one.kind, one.owner)
        name = f"ending in {owner.name[-4:]}" if one.kind.owner == "card" else owner.name
        merchant = f" (merchant {owner.merchant_id})" if owner.merchant_id else ""
        yield _counter(one, name + merchant)
        for gap in found.gaps_of(one):
            yield _gap(gap, found.now)
        for piece in damaged_of(found, one):
            yield f"{piece.serial:>24}  came damaged, entry {piece.entry_no}: {piece.reason}"
    numbers = sum(gap.size for gap in found.gaps)
    more = ", perhaps more" if len(found.gaps) >= LISTED_MAX else ""
    yield f"{numbers} numbers missing in {len(found.gaps)} holes of {len(found.counters)} counters{more}"
