"""Subsidies: who makes good what a fare was reduced by. Rules as data, sums per day, merchant and rule; computed at the close.

A statement and no posting: that a fare was reduced, and by how much, is the terminal's word (the full fare is not under the record's
TAC), so a sponsor pays after holding it against his tariff, and what he pays is booked when it comes.
"""

from datetime import date
from typing import Any, Final, NamedTuple

from psycopg.errors import CheckViolation, ExclusionViolation, ForeignKeyViolation
from psycopg.types.json import Jsonb

from switch.clearing.day_files import Connection
from switch.clearing.fee_changes import SQL, dicts, merchant_numbers
from switch.domain.errors import InputRefused
from switch.domain.people import another, person
from switch.ledger.card_states import with_reason

SHOWN_MAX: Final = 100_000


class SubsidyRule(NamedTuple):
    """discount: TRANSFER or OTHER. None: any merchant, industry, line; no cap. Caps in fen: of a ride, and of a merchant's day."""

    sponsor_id: str
    discount: str
    rate_ppm: int
    valid_from: date
    merchant_id: str | None = None
    industry: int | None = None
    line: str | None = None
    ride_cap_fen: int | None = None
    day_cap_fen: int | None = None
    valid_to: date | None = None


async def set_subsidy(
    connection: Connection, rule: SubsidyRule, *, actor: str, checker: str, reason: str
) -> int:
    """Store a rule that begins after the open day; its number. Two people. Raises InputRefused. connection: in autocommit mode."""
    reason, who = with_reason(reason), _two(actor, checker)
    if rule.valid_to is not None and rule.valid_to < rule.valid_from:
        raise InputRefused("subsidy: valid_to: it must not end before it begins")
    async with connection.transaction():
        if rule.valid_from <= await _today(connection):
            raise InputRefused("subsidy: it must begin after the open business day")
        merchants = await merchant_numbers(connection, [{"merchant_id": rule.merchant_id}])
        try:
            async with connection.transaction():
                cursor = await connection.execute(
                    SQL["add_subsidy_rule"],
                    rule._asdict() | {"merchant_no": merchants.get(rule.merchant_id)},
                )
        except ExclusionViolation:
            raise InputRefused(
                "subsidy: another rule of the same scope holds in that time; end it first"
            ) from None
        except ForeignKeyViolation:
            raise InputRefused("subsidy: sponsor_id: not an institution of the registry") from None
        except CheckViolation:
            raise InputRefused(
                "subsidy: discount TRANSFER or OTHER; rate 1 to 1000000 ppm; industry 1 to 255; line four hex digits"
            ) from None
        row = await cursor.fetchone()
        assert row is not None
        number: int = row[0]
        await _note(connection, number, who, {"reason": reason, "after": _readable(rule)})
    return number


async def end_subsidy(
    connection: Connection, rule_no: int, last: date, *, actor: str, checker: str, reason: str
) -> None:
    """Let a rule end with the open business day or a later one of its own. Two people. Raises InputRefused."""
    reason, who = with_reason(reason), _two(actor, checker)
    async with connection.transaction():
        if last < await _today(connection):
            raise InputRefused("subsidy: it can end with the open business day or later")
        cursor = await connection.execute(SQL["end_subsidy_rule"], {"rule_no": rule_no, "last": last})
        if await cursor.fetchone() is None:
            raise InputRefused("subsidy: no rule of this number holds on that day")
        await _note(connection, rule_no, who, {"reason": reason, "ends": last.isoformat()})


async def subsidy_rules(connection: Connection) -> list[dict[str, Any]]:
    """All that there ever were."""
    return await dicts(connection, "list_subsidy_rules")


async def subsidies(connection: Connection, since: date, until: date) -> list[dict[str, Any]]:
    """What days came to, per sponsor, rule and merchant; at most SHOWN_MAX lines."""
    return await dicts(connection, "subsidies", since=since, until=until, limit=SHOWN_MAX)


def _two(actor: str, checker: str) -> str:
    actor = person("actor", actor)
    return f"{actor}, checked by {another('checker', checker, actor)}"


def _readable(rule: SubsidyRule) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in rule._asdict().items()
        if value is not None
    }


async def _today(connection: Connection) -> date:
    row = await (await connection.execute(SQL["open_date"])).fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    today: date = row[0]
    return today


async def _note(connection: Connection, rule_no: int, actor: str, change: dict[str, Any]) -> None:
    await connection.execute(
        SQL["note_change"], {"actor": actor, "subject": f"subsidy {rule_no}", "change": Jsonb(change)}
    )
