"""What a step of a close read and made, as digests: two runs that agree in them did the same, and a changed table shows.

A part is one table's rows of the day as text (step_digests.sql). The digest of several parts is SHA-256 over a line for each: its name, a space, the SHA-256 of its
text in hex, a line feed. Parts are sums and lists of merchants, never transactions, so they cost milliseconds.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

from switch.clearing.day_files import Connection
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "step_digests.sql")


async def digest_of_parts(connection: Connection, day: date, parts: Sequence[str]) -> bytes | None:
    """SHA-256 over the parts of a day; None where a step names none. connection: with time zone UTC."""
    if not parts:
        return None
    text = " || ".join(
        f"'{part} ' || encode(sha256(convert_to(coalesce(({SQL[part]}), ''), 'UTF8')), 'hex') || E'\\n'"
        for part in parts
    )
    cursor = await connection.execute(f"SELECT sha256(convert_to({text}, 'UTF8'))".encode(), {"day": day})
    row = await cursor.fetchone()
    assert row is not None
    return bytes(row[0])
