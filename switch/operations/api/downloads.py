"""A file on its way to somebody: in blocks, hashed as it goes, and never whole when it is not what was stored."""

import asyncio
from hashlib import new as new_digest
from pathlib import Path
from typing import BinaryIO, Final

import structlog
from aiohttp import web

from switch.operations.api.asking import Refused

log = structlog.get_logger(__name__)

DOWNLOADS_MAX: Final = 2  # at once, per process
DOWNLOAD_S: Final = 600.0
BLOCK_BYTES: Final = 1 << 18


class Downloads:
    """Sends files, a few at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(DOWNLOADS_MAX)

    async def send(
        self, request: web.Request, path: Path, size: int, sm3: str, media: str
    ) -> web.StreamResponse:
        """A file, in blocks. The last one leaves only when all of it has the stored digest: whoever has everything has the right thing."""
        if self._places.locked():
            raise Refused(503, "too many fetch at once", **{"Retry-After": "5"})
        async with self._places:
            try:
                file = await asyncio.to_thread(path.open, "rb")
            except OSError:
                raise Refused(503, "the file is not on disk; the operator can write it again") from None
            with file:
                if (await asyncio.to_thread(path.stat)).st_size != size:
                    raise Refused(503, "the file is not as it was stored; the operator can write it again")
                answer = web.StreamResponse(
                    headers={
                        "Content-Type": media,
                        "Content-Length": str(size),
                        "Content-Disposition": f'attachment; filename="{path.name}"',
                        "X-Content-SM3": sm3,
                        "Cache-Control": "no-store",
                    }
                )
                await answer.prepare(request)
                whole = False
                try:
                    async with asyncio.timeout(DOWNLOAD_S):
                        whole = await _pour(file, answer, sm3)
                    if not whole:
                        log.error("a file on disk is not as it was stored", file=path.name)
                except (OSError, TimeoutError) as error:  # whoever fetches has gone, or takes too long
                    log.warning(
                        "a file was not fetched to its end", file=path.name, error=type(error).__name__
                    )
                if not whole and request.transport is not None:
                    request.transport.abort()  # nothing else may follow half a file
            return answer


async def _pour(file: BinaryIO, answer: web.StreamResponse, sm3: str) -> bool:
    digest = new_digest("sm3")
    held = b""
    while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
        if held:
            await answer.write(held)
        digest.update(block)
        held = block
    if digest.hexdigest().upper() != sm3:
        return False
    if held:
        await answer.write(held)
    await answer.write_eof()
    return True
