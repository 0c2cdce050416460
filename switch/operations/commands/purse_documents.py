"""What `cardswitch purse` says as JSON. Cards masked, instants in ISO 8601, amounts in fen."""

from typing import Any

from switch.domain.identifiers import mask_pan
from switch.purse.alarms import Alarm, Case, Evidence
from switch.purse.card_view import CardView, Grey, LoadLine, state_name
from switch.purse.chain import Step
from switch.purse.completeness import Counter, Damaged, Gap, Missing
from switch.purse.device_view import DeviceView


def counter(one: Counter, name: str = "") -> dict[str, Any]:
    """A counter. name: of its owner."""
    return {
        "counter": one.kind.name,
        **({"owner": name} if name else {}),
        "first": one.first_no,
        "next": one.next_no,
        "expected": one.expected,
        "received": one.received,
        "missing": one.missing,
    }


def gap(one: Gap) -> dict[str, Any]:
    """A hole."""
    return {
        "gap": one.gap_no,
        "counter": one.kind.name,
        "from": one.lowest,
        "to": one.highest,
        "count": one.size,
        "opened_at": one.opened_at,
        "closed_at": one.closed_at,
        "reported_at": one.reported_at,
        "given_up": one.given_up,
    }


def alarm(one: Alarm) -> dict[str, Any]:
    """An alarm with the last word about it."""
    return {
        **one._asdict(),
        "card": mask_pan(one.card) if one.card else None,
    }


def evidence(one: Evidence | None) -> dict[str, Any] | None:
    """A record as a witness."""
    if one is None:
        return None
    document = one._asdict()
    del document["card_key"], document["psam"]
    document["card"] = mask_pan(one.card) if one.card else None
    return document


def case(one: Case) -> dict[str, Any]:
    """An alarm with its evidence."""
    step = one.step
    return {
        **alarm(one.alarm),
        "notes": [note._asdict() for note in one.notes],
        "record": evidence(one.record),
        "other": evidence(one.other),
        "balances": None
        if step is None
        else {
            "verdict": step.verdict.value,
            "expected_fen": step.expected_fen,
            "found_fen": step.found_fen,
            "loads": [load.load_no for load in step.loads],
        },
        "gap": one.gap or None,
    }


def _step(view: CardView, step: Step) -> dict[str, Any]:
    record, found = step.record, step.link
    entry_no, day = view.entries[record.atc]
    return {
        "atc": record.atc,
        "balance_before_fen": record.balance_fen,
        "amount_fen": record.amount_fen,
        "entry_no": entry_no,
        "business_date": day,
        "missing_before": step.missing,
        "link": found.verdict.value if found else None,
        "expected_fen": found.expected_fen if found else None,
        "loads": [load.load_no for load in found.loads] if found else [],
    }


def _grey(one: Grey) -> dict[str, Any]:
    return {
        "entry_no": one.entry_no,
        "business_date": one.business_date,
        **one.trace._asdict(),
        "verdict": one.verdict or None,
        "decided_on": one.decided_on,
        "evidence": one.evidence,
    }


def _load(line: LoadLine) -> dict[str, Any]:
    load = line.load
    return {
        "load": load.load_no,
        "online_atc": load.online_atc,
        "amount_fen": load.amount_fen,
        "balance_before_fen": load.balance_fen,
        "state": state_name(load.state),
        "reason": line.reason,
        "at": line.at,
    }


def card(view: CardView) -> dict[str, Any]:
    """A card's shadow."""
    return {
        "card": mask_pan(view.place.pan),
        "card_no": view.place.card_no,
        "registered": view.place.registered,
        **view.figures._asdict(),
        "counter": counter(view.counter) if view.counter else None,
        "negative": view.figures.balance_fen < 0,
        "clone_suspected": view.suspected_clone,
        "collisions": [one.alarm_no for one in view.collisions],
        "chain": [_step(view, step) for step in view.steps],
        "gaps": [gap(one) for one in view.gaps],
        "greys": [_grey(one) for one in view.greys],
        "loads": [_load(line) for line in view.loads],
        "alarms": [alarm(one) for one in view.alarms],
    }


def damaged(one: Damaged) -> dict[str, Any]:
    """A record in quarantine that says to be a missing one."""
    document = one._asdict()
    del document["terminal_no"]
    return document


def device(view: DeviceView) -> dict[str, Any]:
    """A terminal or PSAM."""
    return {
        view.what: view.owner.name,
        "merchant_id": view.owner.merchant_id,
        "place": view.place or None,
        "now": view.now,
        "counters": [counter(one, name) for one, name in zip(view.counters, view.names, strict=True)],
        "gaps": [gap(one) for one in view.gaps],
        "damaged": [damaged(one) for one in view.damaged],
        "alarms": [one._asdict() for one in view.alarms],
    }


def missing(found: Missing) -> dict[str, Any]:
    """What has not come."""
    rows = []
    for one in found.counters:
        owner = found.owner(one.kind, one.owner)
        name = f"card ending in {owner.name[-4:]}" if one.kind.owner == "card" else owner.name
        rows.append(
            {
                **counter(one, name),
                "merchant_id": owner.merchant_id or None,
                "gaps": [gap(hole) for hole in found.gaps_of(one)],
                "damaged": [damaged(piece) for piece in damaged_of(found, one)],
            }
        )
    return {"now": found.now, "counters": rows}


def damaged_of(found: Missing, one: Counter) -> list[Damaged]:
    """Damaged records of a terminal whose record serials these are."""
    if one.kind.name != "record_serial":
        return []
    return [piece for piece in found.damaged if piece.terminal_no == one.owner]
