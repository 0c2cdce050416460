"""A real sshd for tests: on loopback, with its own host key and configuration in a folder, SFTP only, ended by its own process id.

It is Debian's package openssh-server, which root installs where it is missing. Beside it a line that is cut after so many bytes.
"""

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh

from tests.helpers.debian import program
from tests.helpers.local_server import LocalServer


class Sshd(LocalServer):
    """One server with a folder for our files and one for the partner's. After `stop` connections that are open go on until their client ends them."""

    def __init__(self, folder: Path, *, options: str = "") -> None:
        """options: of internal-sftp, such as -R for a server on which nothing can be written."""
        super().__init__(folder)
        folder.chmod(0o700)
        self.user = getpass.getuser()
        self.inbox, self.outbox = folder / "files", folder / "outbox"
        for place in (self.inbox, self.outbox):
            place.mkdir(exist_ok=True)
        self.key_file = folder / "client_key"
        if not self.key_file.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(self.key_file))
            self.key_file.chmod(0o600)
            key.write_public_key(str(folder / "authorized_keys"))
        self.host_key = self.new_host_key()
        self._options = options

    def new_host_key(self) -> str:
        """Another key from the next start on; returns its public half."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        path = self.folder / "host_key"
        path.unlink(missing_ok=True)
        key.write_private_key(str(path))
        path.chmod(0o600)
        return key.export_public_key().decode().strip()

    def command(self) -> list[str]:
        """With its configuration written."""
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host_key'}",
            f"PidFile {self.folder / 'pid'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            "StrictModes no",  # folders of tests lie below one that everybody may write to
            "UsePAM no",
            "PasswordAuthentication no",
            "PermitRootLogin prohibit-password",
            f"Subsystem sftp internal-sftp {self._options}".rstrip(),
            f"ForceCommand internal-sftp {self._options}".rstrip(),
            "MaxStartups 100",
            "LogLevel ERROR",
        ]
        (self.folder / "sshd_config").write_text("\n".join([*lines, ""]), encoding="utf-8")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it gives its privileges up
        return [program("sshd", "openssh-server"), "-D", "-e", "-f", str(self.folder / "sshd_config")]


@asynccontextmanager
async def cut_after(port: int, count: int) -> AsyncIterator[int]:
    """A port that leads to another until so many bytes have passed, both ways together; then everything is cut."""
    left = count
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                writer.write(data[:left])
                await writer.drain()
                left -= len(data)
                if left <= 0:
                    break
        cut()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, to))
        for one, other in ((reader, to), (there, writer)):
            task = asyncio.create_task(carry(one, other))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        cut()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def stalled_after(port: int, count: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that leads to another until so many bytes have passed, both ways together; then nothing passes, and the event says so."""
    left = count
    stalled = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        try:
            while data := await reader.read(4096):
                left -= len(data)
                if left <= 0:
                    stalled.set()
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", port)
        for one, other in ((reader, to), (there, writer)):
            task = asyncio.create_task(carry(one, other))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], stalled
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
