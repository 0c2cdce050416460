"""A city whose days can be settled."""

from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.keys.software_vault import SoftwareVault
from tests.helpers.settling import Settling


@pytest.fixture
async def city(pg: AsyncConnection[Any], tac_vault: SoftwareVault, tmp_path: Path) -> Settling:
    """With participants and accounts, and nothing traded."""
    made = Settling(pg, tac_vault, tmp_path / "clearing")
    await made.found()
    await made.accounts()
    return made
