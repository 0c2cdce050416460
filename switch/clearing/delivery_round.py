"""One visit to a partner: his receipts are read, his files sent, what he left for us fetched, taken and answered.

Killed anywhere, the next visit goes on. A file gets its name on the server only when it is whole there, and its mark `.ok` only when what
lies there has been read back and is what we have. That the mark may be there is written down before it is made: a file that has
vanished after that was taken by the partner and is not sent a second time.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import Final, NamedTuple

from switch.clearing.deliveries import Deliveries, PartnerTerms, Receipt, Waiting, plain, receipt_name
from switch.clearing.delivery_inbox import Inbox, Take
from switch.clearing.remote import Remote, RemoteFault, whole
from switch.domain.errors import SwitchError

BLOCK_BYTES: Final = 256 << 10
RECEIPT_BYTES_MAX: Final = 4_096
SIGNATURE_BYTES_MAX: Final = 1_024


class LocalFault(SwitchError):
    """A file of ours is not on disk as it was written, or the disk refuses."""


class NotComplete(LocalFault):
    """A file of ours is still being written. Waiting for it is no try."""


class Visit(NamedTuple):
    """What one visit did. fault: empty when all of it went well."""

    partner: str
    sent: tuple[str, ...] = ()
    receipts: int = 0
    fetched: tuple[str, ...] = ()
    fault: str = ""


class Round:
    """One visit on an open line. folder: of a day; inbox: where files of this partner are put; take: takes one in."""

    def __init__(
        self,
        deliveries: Deliveries,
        remote: Remote,
        folder_of: Callable[[date], Path],
        inbox: Path,
        take: Take,
    ) -> None:
        self._deliveries = deliveries
        self._partner: PartnerTerms = deliveries.partner
        self._remote = remote
        self._folder_of = folder_of
        self._inbox = Inbox(deliveries, remote, inbox, take)
        self._sent: list[str] = []
        self._receipts = 0

    async def run(self) -> Visit:
        """Do all that can be done; what one part meets does not keep the others back, unless the line is gone."""
        faults: list[str] = []
        steps: list[Callable[[], Awaitable[None]]] = [self._send_all]
        if self._partner.answers:
            steps.insert(0, self._read_receipts)
        if self._partner.outbox:
            steps.append(self._inbox.empty)
        for step in steps:
            try:
                await step()
            except RemoteFault as fault:
                faults.append(str(fault))
                if fault.lost:
                    break
            except LocalFault as fault:
                faults.append(str(fault))
        return self.so_far("; ".join(faults))

    def so_far(self, fault: str) -> Visit:
        """What has been done. fault: why not all of it; empty when all was."""
        return Visit(self._partner.name, tuple(self._sent), self._receipts, tuple(self._inbox.fetched), fault)

    # --- receipts

    async def _read_receipts(self) -> None:
        for entry in await self._remote.entries(self._partner.folder):
            about = receipt_name(entry.name)
            if about is None:
                continue
            path = f"{self._partner.folder}/{entry.name}"
            content = await self._remote.read_small(path, RECEIPT_BYTES_MAX)
            if content is None:
                continue
            outcome = await self._deliveries.apply_receipt(Receipt(*about, content, entry.written_at))
            self._receipts += outcome != "known"
            await self._remote.remove(path)  # applied; where we may not remove it, it is known again

    # --- files

    async def _send_all(self) -> None:
        deliveries = self._deliveries
        while (waiting := await deliveries.next_waiting()) is not None:
            try:
                self._check_complete(waiting)
                await deliveries.execute("begin_attempt", number=waiting.number)
                await self._send(waiting)
            except (RemoteFault, LocalFault) as fault:
                await deliveries.execute("note_error", number=waiting.number, error=plain(str(fault)))
                raise
            await deliveries.execute("sent", number=waiting.number)
            self._sent.append(waiting.name)

    def _check_complete(self, waiting: Waiting) -> None:
        """NotComplete unless our own NAME.ok lies there; a partner who may have all of it already needs nothing of ours."""
        if waiting.marking:
            return
        mark = self._folder_of(waiting.of_date) / f"{waiting.name}.ok"
        try:
            mark.stat()
        except FileNotFoundError as error:
            raise NotComplete(f"{waiting.name} is not marked complete in {mark.parent} yet") from error
        except OSError as error:
            raise LocalFault(f"{mark}: {error.strerror}") from error

    async def _send(self, waiting: Waiting) -> None:
        target, mark = f"{self._partner.folder}/{waiting.name}", f"{waiting.sm3}  {waiting.name}\n".encode()
        lies = await self._remote.read_small(f"{target}.ok", RECEIPT_BYTES_MAX)
        if lies == mark and waiting.attempts:
            return  # we were stopped behind the mark, which is made of nothing but a whole file
        if lies not in (None, mark):
            raise RemoteFault(f"{waiting.name}.ok of other content lies there; nothing of it was touched")
        size = await self._remote.size(target)
        if size is None and waiting.marking:
            return  # it was there whole and its mark may have been: the partner has taken it
        signature = self._signature(waiting)
        if size != waiting.size_bytes or await self._digest(target, waiting.size_bytes) != waiting.sm3:
            await self._put(waiting, target)
        if signature and await self._remote.read_small(f"{target}.sig", SIGNATURE_BYTES_MAX) != signature:
            await self._put_small(f"{target}.sig", signature)
        await self._deliveries.execute("begin_marking", number=waiting.number)
        await self._put_small(f"{target}.ok", mark)

    async def _put(self, waiting: Waiting, target: str) -> None:
        local = self._folder_of(waiting.of_date) / waiting.name
        await self._remote.write(f"{target}.tmp", _blocks(local, waiting))
        await self._remote.rename(f"{target}.tmp", target)
        size = await self._remote.size(target)
        if size != waiting.size_bytes:
            raise RemoteFault(f"{waiting.name}: {size} bytes lie there, {waiting.size_bytes} were sent")
        if await self._digest(target, waiting.size_bytes) != waiting.sm3:
            raise RemoteFault(f"{waiting.name}: what lies there is not what was sent")

    def _signature(self, waiting: Waiting) -> bytes | None:
        """Of a file that was signed: what lies beside it, which must be what was stored. A signed file never goes out without."""
        if waiting.signature is None:
            return None
        local = self._folder_of(waiting.of_date) / f"{waiting.name}.sig"
        try:
            signature = local.read_bytes()
        except OSError as error:
            raise LocalFault(f"{local}: {error.strerror}") from error
        if signature != waiting.signature:
            raise LocalFault(f"{local} is not the signature that was stored")
        return signature

    async def _put_small(self, path: str, content: bytes) -> None:
        await self._remote.write(f"{path}.tmp", whole(content))
        await self._remote.rename(f"{path}.tmp", path)

    async def _digest(self, path: str, size_bytes: int) -> str:
        """Of a file on the server, which is not read further when it is longer than it should be: it might have no end."""
        digest, size = new_digest("sm3"), 0
        async with aclosing(self._remote.read(path)) as blocks:
            async for block in blocks:
                digest.update(block)
                size += len(block)
                if size > size_bytes:
                    break
        return digest.hexdigest().upper()


async def _blocks(path: Path, waiting: Waiting) -> AsyncGenerator[bytes, None]:
    """A file of ours; LocalFault at its end when it is not what was stored, so that it gets no name on the server."""
    digest, size = new_digest("sm3"), 0
    try:
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                yield block
    except OSError as error:
        raise LocalFault(f"{path}: {error.strerror}") from error
    if (digest.hexdigest().upper(), size) != (waiting.sm3, waiting.size_bytes):
        raise LocalFault(
            f"{path} is not as it was written: `cardswitch close --date {waiting.of_date}` writes it again"
        )
