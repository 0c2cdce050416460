"""Rules as text, and records in the hands of the room's intake."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.storage.pool import connect


def rules_text(*rules: str) -> bytes:
    """A file of rules, each given as `name matter: comparison, comparison`."""
    parts = ["format = 1\n"]
    for rule in rules:
        head, _, when = rule.partition(": ")
        name, matter = head.split()
        comparisons = ", ".join(f'"{one}"' for one in when.split(", "))
        parts.append(f'[[rule]]\nname = "{name}"\nmatter = "{matter}"\nwhen = [{comparisons}]\n')
    return "\n".join(parts).encode()


@pytest.fixture
async def link(town: str) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await connect(town)
    yield connection
    await connection.close()
