"""A partner's folder over SFTP: connecting, and each operation with a bound of time. What is done with it is clearing/delivery_round.py's.

The server's key must be known beforehand; another one, or none known, ends it before anything is sent. We show our key and nothing else:
no password, no agent, no settings of the user who runs this.
"""

import asyncio
import logging
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import asyncssh

from switch.clearing.remote import Entry, HostKeyRefused, RemoteFault
from switch.domain.errors import ConfigurationError

BLOCK_BYTES: Final = 256 << 10
ENTRIES_MAX: Final = 100_000
KEEP_ALIVE_S: Final = 15
KEEP_ALIVES_MAX: Final = 3

logging.getLogger("asyncssh").setLevel(logging.ERROR)  # what goes wrong is said by us, once


class LineTerms(NamedTuple):
    """Where a partner is and how we know him. Exactly one of host_key (`ssh-ed25519 AAAA…`) and known_hosts is given."""

    host: str
    port: int
    user: str
    key_file: Path
    host_key: str = ""
    known_hosts: Path | None = None
    connect_s: float = 20.0
    answer_s: float = 60.0


class _Client(asyncssh.SSHClient):
    """Remembers the key of a server that is not trusted."""

    shown: str = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key.get_fingerprint()
        return False


def _trusted(
    terms: LineTerms,
) -> str | tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    if terms.known_hosts is not None:
        return str(terms.known_hosts)
    try:
        return [asyncssh.import_public_key(terms.host_key)], [], []
    except asyncssh.KeyImportError as error:
        raise ConfigurationError("delivery.partners: host_key is no public key") from error


def _check_key_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"delivery.partners: {path}: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"delivery.partners: {path}: others may read it; mode 600")


@asynccontextmanager
async def sftp_line(terms: LineTerms) -> AsyncIterator["SftpPartner"]:
    """An open line to a partner. RemoteFault when there is none, HostKeyRefused when he is not who he should be."""
    _check_key_file(terms.key_file)
    clients: list[_Client] = []

    def client() -> _Client:
        clients.append(_Client())
        return clients[-1]

    try:
        async with asyncio.timeout(terms.connect_s):
            connection = await asyncssh.connect(
                terms.host,
                terms.port,
                username=terms.user,
                client_keys=[str(terms.key_file)],
                known_hosts=_trusted(terms),
                client_factory=client,
                config=None,
                agent_path=None,
                password=None,
                preferred_auth="publickey",
                keepalive_interval=KEEP_ALIVE_S,
                keepalive_count_max=KEEP_ALIVES_MAX,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        shown = next((client.shown for client in clients if client.shown), "unknown")
        raise HostKeyRefused(
            f"the server's key {shown} is not the one that is known; nothing was sent", shown
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        # A server that has lost the kind of key that is known offers none of its kind.
        raise HostKeyRefused(
            "the server offers no key of the kind that is known; nothing was sent", "none"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise RemoteFault(f"the server does not take our key for {terms.user}", lost=True) from error
    except (asyncssh.Error, OSError, ValueError, TimeoutError) as error:
        raise RemoteFault(f"no line: {_said(error)}", lost=True) from error
    try:
        with _translated("sftp"):
            async with asyncio.timeout(terms.connect_s):
                # Names of other alphabets and encodings may lie there; they are none of ours.
                sftp = await connection.start_sftp_client(path_errors="surrogateescape")
        yield SftpPartner(sftp, terms.answer_s)
    except asyncio.CancelledError:
        connection.abort()  # whoever ends us does not wait for a partner
        raise
    finally:
        connection.close()
        try:
            async with asyncio.timeout(terms.connect_s):
                await connection.wait_closed()
        except (TimeoutError, OSError, asyncssh.Error):
            connection.abort()


def _said(error: BaseException) -> str:
    text = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of the library as RemoteFault."""
    try:
        yield
    except TimeoutError as error:
        raise RemoteFault(f"{what}: no answer", lost=True) from error
    except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
        raise RemoteFault(f"{what}: the line was lost", lost=True) from error
    except asyncssh.SFTPError as error:
        raise RemoteFault(f"{what}: {_said(error)}") from error
    except (asyncssh.Error, OSError) as error:
        raise RemoteFault(f"{what}: {_said(error)}", lost=True) from error


class SftpPartner:
    """An open line; see remote.Remote. answer_s: for one step, a block of a file being one."""

    def __init__(self, sftp: asyncssh.SFTPClient, answer_s: float) -> None:
        self._sftp = sftp
        self._answer_s = answer_s

    @asynccontextmanager
    async def _step(self, what: str) -> AsyncIterator[None]:
        with _translated(what):
            async with asyncio.timeout(self._answer_s):
                yield

    async def entries(self, folder: str) -> list[Entry]:
        """The plain files of a folder whose names are printable ASCII, as all of ours are."""
        found: list[Entry] = []
        seen = 0
        async with self._step(folder):
            async for entry in self._sftp.scandir(folder):
                seen += 1
                if seen > ENTRIES_MAX:
                    raise RemoteFault(f"{folder}: more than {ENTRIES_MAX} files")
                name, attributes = str(entry.filename), entry.attrs
                if not (name.isascii() and name.isprintable()):
                    continue
                if attributes.permissions is None or stat.S_ISREG(attributes.permissions):
                    found.append(Entry(name, attributes.size or 0, attributes.mtime or 0))
        return found

    async def size(self, path: str) -> int | None:
        """Bytes of a file."""
        size: int | None = None
        async with self._step(path):
            with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                size = (await self._sftp.stat(path)).size
        return size

    async def read_small(self, path: str, most: int) -> bytes | None:
        """The first bytes of a file."""
        async with self._step(path):
            try:
                file = await self._sftp.open(path, "rb")
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return None
            async with file:
                content: bytes = await file.read(most)
        return content

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        """A file in blocks."""
        async with self._step(path):
            file = await self._sftp.open(path, "rb")
        try:
            while True:
                async with self._step(path):
                    block: bytes = await file.read(BLOCK_BYTES)
                if not block:
                    break
                yield block
        finally:
            async with self._step(path):
                await file.close()

    async def write(self, path: str, blocks: AsyncGenerator[bytes, None]) -> None:
        """A file, forced out where the server knows how."""
        async with aclosing(blocks):
            await self._write(path, blocks)

    async def _write(self, path: str, blocks: AsyncGenerator[bytes, None]) -> None:
        async with self._step(path):
            file = await self._sftp.open(path, "wb")
        try:
            async for block in blocks:
                async with self._step(path):
                    await file.write(block)
            async with self._step(path):
                # Where it is not supported, what lies there is still read back before it is marked.
                with suppress(asyncssh.SFTPOpUnsupported):
                    await file.fsync()
        finally:
            async with self._step(path):
                await file.close()

    async def rename(self, old: str, new: str) -> None:
        """In one step where the server knows how; an old name is removed first elsewhere."""
        async with self._step(new):
            with suppress(asyncssh.SFTPOpUnsupported):
                await self._sftp.posix_rename(old, new)
                return
            with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                await self._sftp.remove(new)
            await self._sftp.rename(old, new)

    async def remove(self, path: str) -> bool:
        """Whether it is gone; a folder where we may not is no fault."""
        async with self._step(path):
            try:
                await self._sftp.remove(path)
            except asyncssh.SFTPError as error:
                if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection):
                    raise
                return False
        return True
