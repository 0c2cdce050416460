"""A partner's folder over SFTP, on a real sshd."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from switch.clearing.remote import HostKeyRefused, RemoteFault, whole
from switch.domain.errors import ConfigurationError
from switch.transports.sftp_partner import BLOCK_BYTES, LineTerms, SftpPartner, sftp_line
from tests.helpers.local_server import free_port
from tests.helpers.sshd import Sshd, cut_after

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd") / "partner") as server:
        yield server


def terms(server: Sshd) -> LineTerms:
    return LineTerms(
        "127.0.0.1", server.port, server.user, server.key_file, host_key=server.host_key, answer_s=20
    )


@pytest.fixture
async def line(server: Sshd) -> AsyncIterator[SftpPartner]:
    async with sftp_line(terms(server)) as line:
        yield line


async def content_of(line: SftpPartner, path: Path) -> bytes:
    return b"".join([block async for block in line.read(str(path))])


async def test_a_file_is_written_read_listed_renamed_and_removed(line: SftpPartner, server: Sshd) -> None:
    content = os.urandom(BLOCK_BYTES + 12_345)
    path = server.inbox / "one"

    async def blocks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]

    await line.write(f"{path}.tmp", blocks())
    (server.inbox / "folder").mkdir()
    assert await line.size(str(path)) is None
    await line.rename(f"{path}.tmp", str(path))
    assert path.read_bytes() == content
    assert await content_of(line, path) == content
    assert await line.size(str(path)) == len(content)
    assert await line.read_small(str(path), 100) == content[:100]
    (entry,) = await line.entries(str(server.inbox))
    assert (entry.name, entry.size, entry.written_at) == ("one", len(content), int(path.stat().st_mtime))
    await line.write(f"{path}.tmp", whole(b"another"))
    await line.rename(f"{path}.tmp", str(path))  # over what is there
    assert path.read_bytes() == b"another"
    assert await line.remove(str(path))
    assert await line.read_small(str(path), 100) is None
    assert not await line.remove(str(path))


async def test_what_the_server_refuses_is_said_and_the_line_stays(line: SftpPartner, server: Sshd) -> None:
    for step in (
        line.entries("/nowhere/at/all"),
        line.write("/nowhere/at/all", whole(b"x")),
        line.rename(str(server.inbox / "gone"), str(server.inbox / "here")),
        content_of(line, server.inbox / "gone"),
    ):
        with pytest.raises(RemoteFault) as refused:
            await step
        assert not refused.value.lost
    assert await line.size(str(server.inbox)) is not None


async def test_another_host_key_ends_it_before_anything_is_sent(server: Sshd, tmp_path: Path) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with pytest.raises(HostKeyRefused, match="not the one that is known") as refused:
        async with sftp_line(terms(server)._replace(host_key=stranger)):
            pass
    assert refused.value.fingerprint == asyncssh.import_public_key(server.host_key).get_fingerprint()
    other_kind = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    with pytest.raises(RemoteFault):  # either side may be the first to find that they have no kind in common
        async with sftp_line(terms(server)._replace(host_key=other_kind)):
            pass
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.2]:{server.port} {server.host_key}\n")
    with pytest.raises(HostKeyRefused):  # this host is in the file of nobody
        async with sftp_line(terms(server)._replace(host_key="", known_hosts=known)):
            pass
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    async with sftp_line(terms(server)._replace(host_key="", known_hosts=known)) as line:
        assert await line.size(str(server.inbox / "gone")) is None


async def test_what_is_set_wrong_is_said_as_a_setting(server: Sshd, tmp_path: Path) -> None:
    loose = tmp_path / "key"
    loose.write_bytes(server.key_file.read_bytes())
    loose.chmod(0o644)
    for wrong, words in (
        ({"key_file": loose}, "mode 600"),
        ({"key_file": tmp_path / "gone"}, "No such file"),
        ({"host_key": "nonsense"}, "no public key"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            async with sftp_line(terms(server)._replace(**wrong)):
                pass


async def test_a_server_that_is_not_there_or_does_not_know_us_is_a_fault(
    server: Sshd, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(key))
    key.chmod(0o600)
    for other, words in (
        (terms(server)._replace(port=free_port()), "no line"),
        (terms(server)._replace(key_file=key), "our key"),
    ):
        with pytest.raises(RemoteFault, match=words) as refused:
            async with sftp_line(other):
                pass
        assert refused.value.lost


async def test_a_line_that_is_cut_is_lost(server: Sshd) -> None:
    async with cut_after(server.port, 60_000) as port:
        with pytest.raises(RemoteFault) as cut:
            async with sftp_line(terms(server)._replace(port=port)) as line:
                await line.write(str(server.inbox / "cut"), whole(os.urandom(1 << 20)))
        assert cut.value.lost
