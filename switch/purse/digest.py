"""Form and TACs of records, before the database is asked. Runs in worker processes too.

What comes out is one byte per record, so that thousands travel between processes as one string.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from switch.keys.purse import TacItem
from switch.keys.tac_columns import Flags, TacColumns
from switch.keys.workers import verify_columns_in_worker
from switch.purse.columns import has_no_tac, rows_of, tac_columns, well_formed
from switch.purse.record import GREY, LOCKED, NO_TAC, NORMAL, TEST

VerifyTacs = Callable[[TacColumns], Flags]

# What the TAC field says. A TAC is checked only where it could matter: not in grey, test and lock records.
NO_TAC_YET, TAC_BAD, TAC_GOOD, TAC_UNCHECKED, UNREADABLE = range(5)

_BY_KIND: Final = np.full(256, NO_TAC_YET, np.uint8)
_BY_KIND[[TEST, LOCKED]] = TAC_UNCHECKED


def tac_input(raw: bytes) -> bytes:
    """The 22 bytes under the TAC: amount ‖ TTI ‖ PSAM number ‖ PSAM serial ‖ date ‖ time."""
    return raw[30:34] + raw[2:3] + raw[45:55] + raw[38:45]


def tac_item(raw: bytes) -> TacItem:
    """What the vault needs to check the TAC of a record that can be read."""
    return TacItem(raw[3], raw[4], raw[16:24], raw[8:16], tac_input(raw), raw[55:59])


def wants_tac(raw: bytes) -> bool:
    """Whether a TAC check could matter for a record that can be read."""
    return raw[1] == NORMAL and raw[55:59] not in NO_TAC


def unchecked(raw: bytes) -> int:
    """The digest of a record of good form whose TAC nobody has checked, or need not."""
    if raw[1] in (TEST, LOCKED):
        return TAC_UNCHECKED
    return NO_TAC_YET if raw[1] == GREY or raw[55:59] in NO_TAC else TAC_BAD


def digest(blob: bytes, verify: VerifyTacs) -> bytes:
    """One byte per record of records of 96 bytes that lie one behind the other."""
    rows = rows_of(blob)
    found = _BY_KIND[rows[:, 1]]
    readable = well_formed(rows)
    wanting = np.flatnonzero(readable & (rows[:, 1] == NORMAL) & ~has_no_tac(rows))
    if len(wanting):
        found[wanting] = np.where(verify(tac_columns(rows[wanting])), TAC_GOOD, TAC_BAD)
    found[~readable] = UNREADABLE
    return found.tobytes()


def digest_in_worker(blob: bytes) -> bytes:
    """The same in a pool of keys.workers.tac_pool."""
    return digest(blob, verify_columns_in_worker)
