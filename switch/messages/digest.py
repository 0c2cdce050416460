"""The digest by which a repeat is known from another request under the same key.

SM3 over the MTI, the numbers and the values of all request fields but: 26, 52, 53 and tag DF51 of 55 (a PIN is encrypted
anew after a sign-on), 35 and 36 (tracks rest nowhere, not even so), 64, and the reason in 39 of a reversal.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes

from switch.messages.codec import PLANS_MAX
from switch.messages.examine import numbers_of
from switch.messages.kinds import Encoding
from switch.messages.message import Message
from switch.messages.terminal_1987 import BITMAP_AT, FIELDS, FIELDS_AT
from switch.messages.tlv import without_pin_block

EXCLUDED = frozenset({26, 35, 36, 52, 53, 64})


class _Content(NamedTuple):
    head: bytes
    texts: Callable[[Any], Any] | None
    raws: tuple[int, ...]


def _sm3_function() -> Callable[[bytes], bytes]:
    if (
        "sm3" in hashlib.algorithms_available
    ):  # OpenSSL beneath hashlib: a copy of a fresh state, 1.1 microseconds
        fresh = hashlib.new("sm3")

        def by_hashlib(data: bytes) -> bytes:
            state = fresh.copy()
            state.update(data)
            return state.digest()

        return by_hashlib
    empty = hashes.Hash(hashes.SM3())

    def by_cryptography(data: bytes) -> bytes:
        state = empty.copy()
        state.update(data)
        return state.finalize()

    return by_cryptography


sm3 = _sm3_function()
"""SM3 雜湊 of bytes, 32 bytes."""


def content_digest(message: Message) -> bytes:
    """The 32 bytes that stand for the content of a request that decode has read.

    Values are joined by NUL, which no field of characters can hold; byte fields follow with number and length.
    """
    head, texts, raws = _content(message.mti, message.body[BITMAP_AT:FIELDS_AT])
    fields = message.fields
    data = head
    if texts is not None:
        data += "\0".join(texts(fields)).encode("utf-8")
    for number in raws:
        raw = fields[number]
        if number == 55:
            raw = without_pin_block(raw)
            if not raw:
                continue
        data += bytes((0, number)) + len(raw).to_bytes(2, "big") + raw
    return sm3(data)


@lru_cache(maxsize=PLANS_MAX)
def _content(mti: str, bitmap: bytes) -> _Content:
    assert len(bitmap) == FIELDS_AT - BITMAP_AT, "only a message that was read has content"
    excluded = EXCLUDED | {39} if mti == "0400" else EXCLUDED
    numbers = [number for number in numbers_of(bitmap) if number not in excluded]
    texts = [number for number in numbers if FIELDS[number].kind.encoding is not Encoding.BINARY]
    raws = tuple(number for number in numbers if FIELDS[number].kind.encoding is Encoding.BINARY)
    head = f"{mti}:{','.join(map(str, texts))};".encode()
    return _Content(head, itemgetter(*texts) if texts else None, raws)
