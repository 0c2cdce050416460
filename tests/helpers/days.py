"""Business days for tests that must not meet a cut-off that nobody asked for."""

from datetime import date
from typing import Final

from switch.ledger.days import Connection, ensure_days

# One statement, so that nobody sees a hole between two days. Tests that run at 22:55 in Shanghai have the same day until morning.
END_LATER: Final = (
    "UPDATE business_day"
    "   SET begins_at = begins_at + CASE WHEN begins_at > clock_timestamp() THEN interval '8 hours' ELSE interval '0' END,"
    "       ends_at = ends_at + interval '8 hours'"
    " WHERE ends_at > clock_timestamp()"
    "   AND (SELECT ends_at FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at)"
    "       < clock_timestamp() + interval '2 hours'"
)


async def make_days(connection: Connection, ahead_days: int = 3) -> tuple[date, ...]:
    """`ensure_days`, and the open day does not end by itself within two hours."""
    made = await ensure_days(connection, ahead_days)
    await connection.execute(END_LATER)
    return made
