"""A day with some hundred transactions, ready to be closed."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms
from switch.keys.software_vault import SoftwareVault
from tests.helpers import closing
from tests.helpers.clearing_day import add_journal, add_participants
from tests.helpers.days import make_days
from tests.helpers.offline import tac_vault as made_vault

PURCHASES = 400


@pytest.fixture(scope="session")
def tac_vault(tmp_path_factory: pytest.TempPathFactory) -> SoftwareVault:
    """A vault with the roots under which the simulator signs offline records."""
    return made_vault(tmp_path_factory.mktemp("vault"))


@pytest.fixture
def terms(tmp_path: Path, postgres_url: str) -> CloseTerms:
    return closing.terms(postgres_url, tmp_path / "clearing")


@pytest.fixture
async def day(pg: AsyncConnection[Any]) -> date:
    """The open day, with participants and journal rows."""
    first, *_ = await make_days(pg, 3)
    await add_participants(pg)
    await add_journal(pg, first, PURCHASES)
    return first


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder, by name."""
    return lambda folder: {
        path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
