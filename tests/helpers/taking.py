"""A taking of a depot's file in a process of its own, for tests that kill it.

    python -m tests.helpers.taking URL FILE BLOCK [after:N | inside:N]

BLOCK lines at a time. Kills itself (SIGKILL) when the Nth block is committed, or when everything of it is written and nothing is
committed. Prints the receipt's results.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from switch.clearing import received
from switch.clearing.depot_files import depot_kind
from switch.clearing.received import Block, Kind, Progress, Terms, take_file
from switch.ledger.batch_messages import Session
from switch.purse.intake import inline_tacs
from switch.storage.pool import connect
from tests.helpers.closing import die
from tests.helpers.depots import CENTRE, OWN
from tests.helpers.offline import tac_vault


async def run(url: str, path: Path, at: str) -> None:
    """Take the file; the place of death is none, after:N or inside:N."""
    where, _, number = at.partition(":")
    left = int(number or -1)
    finish = Session.finish

    async def mortal(self: Session, *arguments: Any) -> None:
        if left == 1 and where == "inside":
            die()
        await finish(self, *arguments)

    Session.finish = mortal  # type: ignore[method-assign]  # the moment before the commit
    terms = Terms(OWN, CENTRE, 2, "a tester")
    with tempfile.TemporaryDirectory() as folder:
        digest_all = inline_tacs(tac_vault(Path(folder)))
    async with await connect(url) as connection:

        def kind_of(name: Any) -> Kind:
            kind = depot_kind(connection, name, terms, digest_all)

            async def take(progress: Progress, block: Block) -> Progress:
                nonlocal left
                moved = await kind.take(progress, block)
                if left == 1 and where == "after":
                    die()
                left -= 1
                return moved

            return kind._replace(take=take)

        receipt = await take_file(connection, path, terms, kind_of)
    sys.stdout.write(json.dumps(receipt.results))


if __name__ == "__main__":
    received.BLOCK_LINES = int(sys.argv[3])  # type: ignore[misc]  # a file of a million lines is for the bench
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), "".join(sys.argv[4:])))
