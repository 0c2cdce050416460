"""A partner's folder as delivery needs it, whatever the line: transports/sftp_partner.py is one."""

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

from switch.domain.errors import DependencyError


class RemoteFault(DependencyError):
    """A partner's server did not do what was asked. lost: the line is gone, so nothing more can be asked on it."""

    def __init__(self, rule: str, *, lost: bool = False) -> None:
        self.lost = lost
        super().__init__(rule)


class HostKeyRefused(RemoteFault):
    """The server showed another key than the one that is known, or none is known. Nothing was sent. fingerprint: of what it showed."""

    def __init__(self, rule: str, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        super().__init__(rule, lost=True)


class Entry(NamedTuple):
    """A file of a folder. written_at: the server's clock, seconds."""

    name: str
    size: int
    written_at: int


async def whole(content: bytes) -> AsyncGenerator[bytes, None]:
    """Content that is there already, as blocks."""
    yield content


class Remote(Protocol):
    """An open line. Everything raises RemoteFault. Paths are the server's."""

    async def entries(self, folder: str) -> list[Entry]:
        """The files of a folder, not of those below it."""

    async def size(self, path: str) -> int | None:
        """Bytes of a file; None when it is not there."""

    async def read_small(self, path: str, most: int) -> bytes | None:
        """The first bytes of a file; None when it is not there."""

    def read(self, path: str) -> AsyncGenerator[bytes, None]:
        """A file in blocks."""

    async def write(self, path: str, blocks: AsyncGenerator[bytes, None]) -> None:
        """A file, replacing what is there, forced out on the server where it can do that. Closes blocks."""

    async def rename(self, old: str, new: str) -> None:
        """Give a file its name in one step, replacing what has it."""

    async def remove(self, path: str) -> bool:
        """Remove a file; whether that was allowed."""
