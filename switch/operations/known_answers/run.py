"""Running vector files: find each vector's checker, compare every stated value. An unknown op fails; none is skipped."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from switch.domain.errors import InputRefused, SwitchError
from switch.operations.known_answers import clearing, epurse, host8583, iso8583, keys, mac, offline, pin, sm
from switch.operations.known_answers.vector import Checker, Vector, differences

VECTORS_MAX = 100_000
_SUITES: tuple[dict[tuple[str, str], Checker], ...] = (
    mac.CHECKERS,
    pin.CHECKERS,
    sm.CHECKERS,
    keys.CHECKERS,
    epurse.CHECKERS,
    iso8583.CHECKERS,
    host8583.CHECKERS,
    offline.CHECKERS,
    clearing.CHECKERS,
)


def _registry(suites: Iterable[Mapping[tuple[str, str], Checker]]) -> dict[tuple[str, str], Checker]:
    registry: dict[tuple[str, str], Checker] = {}
    for suite in suites:
        assert not registry.keys() & suite.keys(), "each operation has one checker"
        registry |= suite
    return registry


CHECKERS = _registry(_SUITES)


class Verdict(NamedTuple):
    """The outcome of one vector; `faults` is empty when every stated value agreed."""

    ident: str
    suite: str
    op: str
    faults: tuple[str, ...]


def run_document(document: object) -> Iterator[Verdict]:
    """Check all vectors of a file, published ones first. InputRefused when it is no vector file, or has no vector."""
    if not isinstance(document, dict) or not isinstance(document.get("suite"), str):
        raise InputRefused("not a vector file: it names no suite")
    entries = [
        (kind, entry)
        for list_name, kind in (("published", "published"), ("vectors", "vector"))
        for entry in document.get(list_name) or ()
    ]
    if not entries:
        raise InputRefused("the file has no vectors")
    if len(entries) > VECTORS_MAX:
        raise InputRefused(f"the file has more than {VECTORS_MAX} vectors")
    state: dict[Any, Any] = {}
    for place, (kind, entry) in enumerate(entries, start=1):
        yield _run_one(document, kind, entry, place, state)


def _run_one(
    document: dict[str, Any], kind: str, entry: object, place: int, state: dict[Any, Any]
) -> Verdict:
    suite = document["suite"]
    if not isinstance(entry, dict):
        return Verdict(f"#{place}", suite, "?", ("not an object",))
    ident, op = str(entry.get("id", f"#{place}")), str(entry.get("op", kind))
    checker = CHECKERS.get((suite, op))
    if checker is None:
        return Verdict(ident, suite, op, (f"nothing checks operation {op} of suite {suite}",))
    vector = Vector(ident, entry, document, state)
    try:
        faults = differences(vector.outs, checker(vector))
    except SwitchError as error:
        faults = [str(error)]
    except Exception as error:  # noqa: BLE001  a checker that breaks on odd input is a failed vector, not a stop
        faults = [f"broke off with {type(error).__name__}"]
    return Verdict(ident, suite, op, tuple(faults))
