"""Towns for tests that kill, cut and overload: each module has one of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.helpers.till import Wire
from tests.helpers.town import Town


@pytest.fixture(autouse=True)
async def _wires() -> AsyncIterator[None]:
    """Hang up after each test."""
    yield
    await Wire.close_all()


@pytest.fixture(scope="module")
def town(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town that nobody serves yet. At the end its books are audited and whoever serves it is ended."""
    copy = built_town.copy(tmp_path_factory.mktemp("town"))
    try:
        yield copy
        copy.run("audit")
    finally:
        copy.stop_all()
