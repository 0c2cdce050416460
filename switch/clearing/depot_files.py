"""XF: a depot's offline records as a file. Every record goes through the checks of the intake and has one result."""

from typing import Final

from switch.clearing.day_files import Connection
from switch.clearing.files import FileName
from switch.clearing.layouts import Value
from switch.clearing.received import SQL, Block, Kind, Progress, Terms
from switch.ledger.serials import Serials
from switch.purse.depot import Statement, TakenChunk, take_chunk
from switch.purse.intake import DigestAll

DEPOT: Final = "XF"


def depot_kind(connection: Connection, name: FileName, terms: Terms, digest_all: DigestAll) -> Kind:
    """How such a file is taken. digest_all: reads records and checks their TACs."""
    serials = Serials()

    async def take(progress: Progress, block: Block) -> Progress:
        records = [bytes.fromhex(str(values["record"])) for values in block.lines]
        moved = progress

        def note(taken: TakenChunk) -> list[Statement]:
            nonlocal moved
            moved = progress.after(len(records), taken.results)
            chunk = {
                "file_no": progress.file_no,
                "first_line": block.first_line,
                "line_count": len(records),
                "today": taken.today,
                "first_entry": taken.first_entry,
            }
            return [(SQL["add_chunk"], chunk), moved.statement(taken.today)]

        await take_chunk(
            connection,
            name.sender,
            records,
            digest_all=digest_all,
            shards=terms.shards,
            serials=serials,
            note=note,
        )
        return moved

    def check(_number: int, _values: dict[str, Value]) -> None:
        """The layout says all that a line must be; what a record is worth is for the intake."""

    return Kind(addressee=terms.centre_id, sender="", check=check, take=take)
