"""XF: a depot's offline records as a file. Every record goes through the checks of the intake and has one result."""

from typing import Final

from switch.clearing.day_files import Connection
from switch.clearing.files import FileName
from switch.clearing.received import Kind, Terms
from switch.clearing.record_files import Note, record_kind
from switch.ledger.serials import Serials
from switch.purse.depot import take_chunk
from switch.purse.intake import DigestAll

DEPOT: Final = "XF"


def depot_kind(connection: Connection, name: FileName, terms: Terms, digest_all: DigestAll) -> Kind:
    """How such a file is taken. digest_all: reads records and checks their TACs."""
    serials = Serials()

    async def intake(records: list[bytes], note: Note) -> None:
        await take_chunk(
            connection,
            name.sender,
            records,
            digest_all=digest_all,
            shards=terms.shards,
            serials=serials,
            note=note,
        )

    return record_kind(terms.centre_id, "", intake)
