"""Lines of transactions as a member has them in its CM, without their mark: 299 characters, the very bytes of the file."""

from collections.abc import Collection
from contextlib import aclosing
from datetime import date
from typing import Any, Final

from psycopg import AsyncConnection

from switch.clearing.charges import CHARGES_OF_ENTRIES, charges, member_lines
from switch.clearing.copying import Messages, copied

LINE: Final = slice(1, 300)  # of a line with its mark and CRLF


async def lines_of(
    connection: AsyncConnection[Any], day: date, member: str, entries: Collection[int]
) -> dict[int, str]:
    """Of entries of a closed or closing day that the member issued or acquired, the line of each."""
    ordered = sorted(set(entries))
    messages: Messages = []
    async with aclosing(copied(connection, CHARGES_OF_ENTRIES, {"day": day, "entries": ordered})) as blocks:
        async for block in blocks:
            messages += block
    lines = member_lines(charges(messages), member)
    assert len(lines) == len(ordered), "every entry has a line of this member"
    return {entry: line.tobytes()[LINE].decode("ascii") for entry, line in zip(ordered, lines, strict=True)}
