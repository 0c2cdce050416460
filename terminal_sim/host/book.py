"""A host's books: accounts, what was booked under which key, and what has been undone. No socket, no clock.

Everything a switch may send again is recognised by its key: the same message gets the stored answer and moves nothing.
A reversal is known by its original, so that one that comes by another message type or with a new trace counts once too.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

CODE_PURCHASE, CODE_PRE_AUTHORISATION, CODE_RETURN, CODE_BALANCE, CODE_LOAD = "00", "03", "20", "31", "60"
DEBITS = (CODE_PURCHASE, CODE_PRE_AUTHORISATION, CODE_LOAD)
CONTENT = (2, 3, 4, 37, 41, 42, 90)  # what makes a repeat the same message

Fields = Mapping[int, Any]
OriginalKey = tuple[str, str, str]  # MTI, field 11, field 7


class Account(NamedTuple):
    """One card's account as it is opened. pin: None where the account asks for none."""

    pan: str
    balance_fen: int
    pin: str | None = None

    def __repr__(self) -> str:
        return f"Account(balance_fen={self.balance_fen})"


class Keeper(Protocol):
    """Where a host writes down what it books, before it answers."""

    def add(self, mti: str, fields: Fields, refused: str = "") -> None:
        """A message was booked, or refused with a code."""


class Entry:
    """One booked message. moved_fen: what it took from the account; returned_fen and undone: what became of that."""

    __slots__ = ("amount_fen", "answer", "content", "key", "moved_fen", "pan", "returned_fen", "undone")

    def __init__(self, key: OriginalKey, fields: Fields) -> None:
        self.key = key
        self.pan = str(fields.get(2, ""))
        self.amount_fen = int(fields.get(4, 0))
        self.content = tuple(fields.get(number) for number in CONTENT)
        self.answer: dict[int, Any] = {}
        self.moved_fen = 0
        self.returned_fen = 0
        self.undone = False


def message_key(mti: str, fields: Fields) -> OriginalKey:
    """How the other side will call this message in a field 90."""
    return mti, fields[11], fields[7]


def original_key(field90: str) -> OriginalKey:
    """The message that a field 90 names."""
    return field90[:4], field90[4:10], field90[10:20]


class HostBook:
    """Accounts and entries. `settle` gives the fields by which an answer differs from its request."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._balances: dict[str, int] = {}
        self._pins: dict[str, str] = {}
        for account in accounts:
            self._balances[account.pan] = account.balance_fen
            if account.pin is not None:
                self._pins[account.pan] = account.pin
        self.entries: dict[OriginalKey, Entry] = {}
        self._reversals: dict[OriginalKey, dict[int, Any]] = {}
        self._serial = 0
        self.settlement_day = "0101"
        self.keeper: Keeper | None = None

    def balance_fen(self, pan: str) -> int:
        """What an account holds now."""
        return self._balances[pan]

    def pin_of(self, pan: str) -> str | None:
        """The PIN that an account asks for."""
        return self._pins.get(pan)

    def copy(self) -> "HostBook":
        """A backup, to come back with an old sequence."""
        return deepcopy(self)

    def stored(self, mti: str, fields: Fields) -> dict[int, Any] | None:
        """The answer given to this very message before; 94 when another message had its key."""
        if mti in ("0400", "0420"):
            return self._reversals.get(original_key(fields.get(90, "")))
        entry = self.entries.get(message_key(mti, fields))
        if entry is None:
            return None
        same = entry.content == tuple(fields.get(number) for number in CONTENT)
        return entry.answer if same else {39: "94"}

    def settle(self, mti: str, fields: Fields) -> dict[int, Any]:
        """Book a message, once, and answer it."""
        before = self.stored(mti, fields)
        if before is not None:
            return before
        if mti in ("0400", "0420"):
            original = original_key(fields.get(90, ""))
            answer = self._reversals[original] = self._reverse(original, fields)
            self._keep(mti, fields)
            return answer
        entry = Entry(message_key(mti, fields), fields)
        tombstone = self._reversals.get(entry.key)
        entry.answer = {39: "22"} if tombstone is not None else self._book(mti, fields, entry)
        self.entries[entry.key] = entry
        self._keep(mti, fields)
        return entry.answer

    def _keep(self, mti: str, fields: Fields, refused: str = "") -> None:
        if self.keeper is not None:
            self.keeper.add(mti, fields, refused)

    def refusal(self, _mti: str, _fields: Fields) -> str | None:
        """Why the account is not for this; a bank asks nothing beyond what everybody asks."""
        return None

    def refuse(self, mti: str, fields: Fields, code: str) -> dict[int, Any]:
        """Book a refusal, which a repeat gets too."""
        entry = Entry(message_key(mti, fields), fields)
        entry.answer = {39: code}
        self.entries[entry.key] = entry
        self._keep(mti, fields, code)
        return entry.answer

    def _book(self, mti: str, fields: Fields, entry: Entry) -> dict[int, Any]:
        code = str(fields.get(3, ""))[:2]
        if entry.pan not in self._balances:
            return {39: "14"}
        if (refusal := self.refusal(mti, fields)) is not None:
            return {39: refusal}
        if code == CODE_BALANCE:
            return self._approved() | {54: self._shown(entry.pan)}
        if code == CODE_RETURN:
            return self._return(fields, entry)
        if code not in DEBITS:
            return {39: "40"}
        if not entry.amount_fen:
            return {39: "13"}
        if (
            mti != "0220" and entry.amount_fen > self._balances[entry.pan]
        ):  # an advice tells what has been decided
            return {39: "51"}
        self._balances[entry.pan] -= entry.amount_fen
        entry.moved_fen = entry.amount_fen
        return self._approved()

    def _return(self, fields: Fields, entry: Entry) -> dict[int, Any]:
        original = self.entries.get(original_key(fields.get(90, "")))
        if original is None or original.undone or not original.moved_fen or original.pan != entry.pan:
            return {39: "25"}
        if not 0 < entry.amount_fen <= original.moved_fen - original.returned_fen:
            return {39: "64"}
        original.returned_fen += entry.amount_fen
        self._balances[entry.pan] += entry.amount_fen
        entry.moved_fen = -entry.amount_fen
        return self._approved()

    def _reverse(self, key: OriginalKey, fields: Fields) -> dict[int, Any]:
        original = self.entries.get(key)
        if original is None:
            return {39: "25"}  # and from now on the key is a tombstone: the late original gets 22
        if int(fields.get(4, 0)) != original.amount_fen:
            return {39: "64"}
        if original.returned_fen:
            return {39: "12"}
        if original.moved_fen and not original.undone:
            self._balances[original.pan] += original.moved_fen
        original.undone = True
        return {39: "00"}

    def _approved(self) -> dict[int, Any]:
        self._serial += 1
        return {38: f"{self._serial:06d}", 39: "00", 15: self.settlement_day}

    def _shown(self, pan: str) -> str:
        balance = self._balances[pan]
        sign = "D" if balance < 0 else "C"
        return "".join(f"20{kind}156{sign}{abs(balance):012d}" for kind in ("01", "02"))

    @property
    def moved_fen(self) -> int:
        """What all accounts together have paid and not got back."""
        return sum(entry.moved_fen for entry in self.entries.values() if not entry.undone)
