"""What a partner leaves for us: fetched by its mark, put into a folder whole, taken where its type is taken, and answered.

`.ack` says what became of it, `.rej` why it was refused. A run that was killed goes on: a file that has been taken gives its stored
receipt again, and an answer that was not written is written then.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from hashlib import new as new_digest
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from switch.clearing.deliveries import Deliveries, is_name
from switch.clearing.files import (
    FileName,
    FileRefused,
    FileStatus,
    check_file,
    digest_of,
    parse_name,
    sync_folder,
)
from switch.clearing.remote import Entry, Remote, RemoteFault, whole
from switch.domain.errors import InputRefused

MARK_BYTES_MAX: Final = 1_024
DIGEST_LENGTH: Final = 64


class Taken(Protocol):
    """What is told of a file that was taken, or refused: received.Receipt."""

    @property
    def status(self) -> str:
        """A FileStatus."""

    @property
    def reason(self) -> str:
        """Why it was refused."""

    @property
    def lines(self) -> int:
        """Its lines."""

    @property
    def results(self) -> Mapping[str, tuple[int, int]]:
        """What became of them: count and fen by code."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Sequence numbers before its own that have not come."""


# Takes a file in. None: files of this type are not taken, and it stays in the folder for people.
Take = Callable[[Path], Awaitable[Taken | None]]


class _Came(NamedTuple):
    """A file that lies there. sm3: by its mark, upper-case hex."""

    name: FileName
    sm3: str
    size: int

    @property
    def key(self) -> dict[str, object]:
        """Its row."""
        return {"name": str(self.name), "sm3": bytes.fromhex(self.sm3)}


class Inbox:
    """Files of one partner. folder: where they are put."""

    def __init__(self, deliveries: Deliveries, remote: Remote, folder: Path, take: Take) -> None:
        self._deliveries = deliveries
        self._partner = deliveries.partner
        self._remote = remote
        self._folder = folder
        self._take = take
        self.fetched: list[str] = []

    async def empty(self) -> None:
        """Fetch, take and answer everything that is marked complete, in the order of the names."""
        lies = {entry.name: entry for entry in await self._remote.entries(self._partner.outbox)}
        for mark in sorted(name for name in lies if name.endswith(".ok") and is_name(name[:-3])):
            name = mark[:-3]
            if name not in lies:
                continue  # taken back, or only its mark was left
            answers = [lies[answer] for answer in (f"{name}.ack", f"{name}.rej") if answer in lies]
            # The server's clock on both: an answer that is younger than the mark is about this file.
            if any(answer.written_at > lies[mark].written_at for answer in answers):
                continue
            came = await self._read_mark(lies[name], mark)
            if came is not None:
                await self._work(came, answered={answer.name for answer in answers})

    async def _read_mark(self, entry: Entry, mark: str) -> _Came | None:
        content = await self._remote.read_small(f"{self._partner.outbox}/{mark}", MARK_BYTES_MAX) or b""
        words = content.decode("ascii", "replace").split()
        digest = words[0].upper() if words else ""
        if len(words) == 2 and words[1] == entry.name and _is_digest(digest):
            return _Came(parse_name(entry.name), digest, entry.size)
        # It may be in the writing still; if not, people have to look.
        await self._deliveries.alarm(
            "BAD_MARK", entry.name, f"{mark} is not a digest, two spaces and the name"
        )
        return None

    async def _work(self, came: _Came, answered: set[str]) -> None:
        execute = self._deliveries.execute
        rows = await execute("inbox", **came.key)
        if not rows:
            if (await execute("other_version", **came.key))[0][0]:
                await self._deliveries.alarm(
                    "DUPLICATE", str(came.name), "the same name came with other content"
                )
            refusal = self._refusal(came) or await self._fetch(came)
            await execute("add_inbox", size=came.size, **came.key)
            if refusal:
                await execute("end_inbox", state="REFUSED", said=refusal, **came.key)
            else:
                self.fetched.append(str(came.name))
            rows = await execute("inbox", **came.key)
        state, said, done = rows[0]
        if state == "FETCHED":
            state, said = await self._take_in(came)
            await execute("end_inbox", state=state, said=said, **came.key)
        answer = f"{came.name}.{'rej' if state == 'REFUSED' else 'ack'}"
        if not (done and answer in answered):
            await self._answer(answer, came, said)
            await execute("answered", **came.key)

    def _refusal(self, came: _Came) -> str:
        """Why a file is not even fetched."""
        if came.name.kind not in self._partner.sends:
            return f"{FileStatus.CONTENT} files of type {came.name.kind} are not expected from you"
        if came.name.sender not in self._partner.parties:
            return f"{FileStatus.NOT_A_MEMBER} the sender in the name is not you"
        if came.size > self._partner.fetch_bytes_max:
            return f"{FileStatus.CONTENT} larger than {self._partner.fetch_bytes_max} bytes"
        return ""

    def _path(self, came: _Came) -> Path:
        """Where it is put; another file that came under the same name keeps its place."""
        path = self._folder / str(came.name)
        if path.exists() and digest_of(path)[0] != came.sm3:
            return self._folder / came.sm3[:16] / str(came.name)
        return path

    async def _fetch(self, came: _Came) -> str:
        """Put it into the folder; why not, when it is not what its mark says."""
        digest, size = new_digest("sm3"), 0
        try:
            path = self._path(came)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.tmp")
            try:
                source = self._remote.read(f"{self._partner.outbox}/{came.name}")
                with temporary.open("wb") as stream:
                    async with aclosing(source) as blocks:
                        async for block in blocks:
                            digest.update(block)
                            size += len(block)
                            if size > self._partner.fetch_bytes_max:
                                return (
                                    f"{FileStatus.CONTENT} larger than {self._partner.fetch_bytes_max} bytes"
                                )
                            stream.write(block)
                    stream.flush()
                    os.fsync(stream.fileno())
                if digest.hexdigest().upper() != came.sm3:
                    return f"{FileStatus.DIGEST} the digest in {came.name}.ok is not the file's"
                temporary.replace(path)
                sync_folder(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise RemoteFault(f"{came.name} cannot be put into {self._folder}: {error.strerror}") from error
        return ""

    async def _take_in(self, came: _Came) -> tuple[str, str]:
        path = self._path(came)
        if not path.exists() and (refusal := await self._fetch(came)):
            return "REFUSED", refusal
        try:
            taken = await self._take(path)
        except FileRefused as refusal:
            return "REFUSED", f"{refusal.status} {refusal}"
        except InputRefused as refusal:  # nothing can be said about it yet: it is tried again
            raise RemoteFault(f"{came.name} is not taken now: {refusal}") from refusal
        if taken is None:
            return self._keep(path)
        if taken.status != FileStatus.TAKEN:
            return "REFUSED", f"{taken.status} {taken.reason}"
        for sequence in taken.missing:
            missing = came.name._replace(sequence=sequence)
            await self._deliveries.alarm("GAP", str(missing), f"{came.name} came, and this one has not")
        counts = "".join(f"\n{code} {count} {fen}" for code, (count, fen) in sorted(taken.results.items()))
        return "TAKEN", f"{FileStatus.TAKEN} {taken.lines} lines taken{counts}"

    def _keep(self, path: Path) -> tuple[str, str]:
        """A type that people work on: checked, and left where it is."""
        try:
            with path.open("rb") as stream:
                checked = check_file(path.name, stream)
        except FileRefused as refusal:
            return "REFUSED", f"{refusal.status} {refusal}"
        except OSError as error:
            raise InputRefused(f"{path}: {error.strerror}") from error
        return "KEPT", f"{FileStatus.TAKEN} {checked.head.line_count} lines received"

    async def _answer(self, answer: str, came: _Came, said: str) -> None:
        path = f"{self._partner.outbox}/{answer}"
        content = f"{came.sm3}  {came.name}\n{said}\n".encode()

        await self._remote.write(f"{path}.tmp", whole(content))
        await self._remote.rename(f"{path}.tmp", path)


def _is_digest(text: str) -> bool:
    return len(text) == DIGEST_LENGTH and all(char in "0123456789ABCDEF" for char in text)
