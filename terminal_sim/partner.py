"""A partner who settles by the switch's files: an SFTP server of his own, a folder for what he gets, and his receipts.

He knows docs/delivery.md and docs/clearing_files.md and nothing of the switch's code. Loopback only; the one key that may come in is
drawn when he opens.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import new as new_hash
from pathlib import Path
from typing import NamedTuple

import asyncssh

NAME_CHARS = 29
USER = "cardswitch"
IN, OUT = "in", "out"  # for him; from him


class Received(NamedTuple):
    """A file that he found complete. fault: empty where the digest in its .ok is the file's."""

    name: str
    sm3: str
    fault: str


class Partner:
    """`folder` is his disk: `in` and `out` are what the switch sees of it. Use `opened`."""

    def __init__(self, folder: Path, port: int, host_key: str, client_key: Path) -> None:
        self.folder = folder
        self.port = port
        self.host_key = host_key  # as the switch must know it
        self.client_key = client_key  # with which the switch comes

    def look(self) -> list[Received]:
        """What has come and is marked complete, by name."""
        found = []
        for okay in sorted(self.folder.joinpath(IN).glob("*.ok")):
            name = okay.name.removesuffix(".ok")
            raw = okay.with_name(name).read_bytes() if okay.with_name(name).exists() else b""
            said = okay.read_text("ascii").split()
            sm3 = new_hash("sm3", raw).hexdigest().upper()
            good = len(name) == NAME_CHARS and said == [sm3, name]
            found.append(Received(name, sm3, "" if good else "01 the digest beside it is not the file's"))
        return found

    def receipt(self, received: Received) -> None:
        """Say what became of a file: `NAME.ack` with its digest, or `NAME.rej` with the reason."""
        word = "rej" if received.fault else "ack"
        path = self.folder / IN / f"{received.name}.{word}"
        path.with_suffix(".part").write_text(f"{received.fault or received.sm3}\n", encoding="ascii")
        path.with_suffix(".part").replace(path)

    def leave(self, name: str, content: bytes) -> None:
        """Put a file out for the switch, and mark it complete."""
        path = self.folder / OUT / name
        path.write_bytes(content)
        digest = new_hash("sm3", content).hexdigest().upper()
        path.with_name(f"{name}.ok").write_text(f"{digest}  {name}\n", encoding="ascii")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Partner]:
    """Open his door on a free loopback port, with keys drawn now."""
    for part in (IN, OUT):
        folder.joinpath(part).mkdir(parents=True, exist_ok=True)
    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    client_key = folder / "switch.key"
    client_key.touch(mode=0o600)
    client_key.write_bytes(client.export_private_key())

    def sftp(channel: "asyncssh.SSHServerChannel[bytes]") -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=str(folder).encode())

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        authorized_client_keys=asyncssh.import_authorized_keys(client.export_public_key().decode()),
        sftp_factory=sftp,
        allow_scp=False,
    )
    try:
        yield Partner(folder, server.get_port(), host.export_public_key().decode().strip(), client_key)
    finally:
        server.close()
        await server.wait_closed()
