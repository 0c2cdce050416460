"""BF and BI: the hot list as the day's files for acquirers that want it. Whole the first time, then what changed since their last file.

Which versions a day carries is stored with its plan; versions never change, so the lines can be made again at any time.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.layouts import LAYOUTS, sql_line
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "hot_list_files.sql")

_LINE: Final = sql_line(
    LAYOUTS["BF"],
    {
        "line_no": "row_number() OVER (ORDER BY l.part, l.asn)",
        "operation": "l.operation",
        "asn": "l.asn",
        "level": "lpad(l.level::text, 2, '0')",
        "effective_date": "to_char(l.effective_date, 'YYYYMMDD')",
    },
)
assert LAYOUTS["BF"].fields == LAYOUTS["BI"].fields

# Lines of one acquirer's file, whichever of the two it is.
HOT_LIST_LINES: Final = (
    f"COPY (SELECT {_LINE} FROM clearing_hot_list h"  # noqa: S608
    " CROSS JOIN LATERAL clearing_hot_list_lines(h.base, h.version) AS l"
    " WHERE h.business_date = %(day)s AND h.acquirer_id = %(acquirer)s ORDER BY l.part, l.asn) TO STDOUT"
)


class HotListFile(NamedTuple):
    """A file of a day: BF or BI, for whom, its lines and the version, which is its total."""

    kind: str
    acquirer: str
    lines: int
    version: int


async def plan_hot_lists(
    connection: AsyncConnection[tuple[Any, ...]], day: date, wanted: Sequence[str]
) -> list[HotListFile]:
    """Settle which acquirers get a list with this day. In the caller's transaction, once per day."""
    await connection.execute(SQL["freeze_hot_lists"], {"day": day, "wanted": list(wanted)})
    cursor = await connection.execute(SQL["plan_hot_lists"], {"day": day})
    return [
        HotListFile("BF" if whole else "BI", acquirer, lines, version)
        for acquirer, whole, version, lines in await cursor.fetchall()
    ]
