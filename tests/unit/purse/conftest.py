"""Fixtures of the room: a town with buses, a vault with its TAC roots, and writers on their own connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from switch.domain.decisions import Outcome
from switch.keys.software_vault import SoftwareVault
from switch.purse.intake import IntakeWriter, Upload, inline_tacs
from switch.storage.pool import connect
from tests.helpers.offline import Fetch, build, fetcher, tac_vault


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    return tac_vault(tmp_path)


@pytest.fixture
async def town(postgres_url: str) -> str:
    await build(postgres_url)
    return postgres_url


@pytest.fixture
def fetch(town: str) -> Fetch:
    return fetcher(town)


class Office:
    """A writer of one process, and a way to wait for answers."""

    def __init__(self, writer: IntakeWriter) -> None:
        self.writer = writer
        self.task = asyncio.create_task(writer.run())

    def send(self, upload: Upload) -> "asyncio.Future[Outcome | None]":
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        assert self.writer.submit(upload, future.set_result)
        return future

    async def take(self, *uploads: Upload) -> list[Outcome | None]:
        return list(await asyncio.gather(*(self.send(upload) for upload in uploads)))

    async def close(self) -> None:
        self.writer.stop()
        await self.task


OpenOffice = Callable[..., Office]


@pytest.fixture
async def open_office(town: str, vault: SoftwareVault) -> AsyncIterator[OpenOffice]:
    """Opens intake writers, as many as there are processes."""
    offices: list[Office] = []

    def open_one(**changes: Any) -> Office:
        arguments: dict[str, Any] = {
            "connect": lambda: connect(town),
            "digest_all": inline_tacs(vault),
            "shards": 2,
        } | changes
        office = Office(IntakeWriter(**arguments))
        offices.append(office)
        return office

    yield open_one
    for office in offices:
        await office.close()


@pytest.fixture
async def office(open_office: OpenOffice) -> Office:
    return open_office()
