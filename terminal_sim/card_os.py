"""The operating system of a purse card: selection, files, PIN, authentication, secure messaging and locks.

Permanent memory changes in one step at the end of a command or not at all; everything else (selection, challenge, security
state) dies with the power. Knows nothing about money: `card.PurseCard` adds the transactions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hmac import compare_digest
from os import urandom
from types import MappingProxyType
from typing import ClassVar

from terminal_sim import crypto
from terminal_sim.apdu import ApduDevice, Command, StatusError, Sw, tlv, tries_left
from terminal_sim.crypto import KeyKind
from terminal_sim.personalisation import HOLDER_FILE, PUBLIC_FILE, CardKeySet, CardProfile

AIDS = (
    bytes.fromhex("A000000632010105"),
    bytes.fromhex("A00000000386980701"),
)  # T-Union purse; older PBOC name
PURSE_LOG, CAPP_FILE, RIDE_LOG = 0x18, 0x1A, 0x1E
PIN_TRIES = 3
EXTERNAL_TRIES = 15
MESSAGING_FAILURES_MAX = 3

SELECT, READ_BINARY, READ_RECORD, UPDATE_BINARY, GET_CHALLENGE, VERIFY = 0xA4, 0xB0, 0xB2, 0xD6, 0x84, 0x20
EXTERNAL_AUTHENTICATE, INTERNAL_AUTHENTICATE, CHANGE_PIN = 0x82, 0x88, 0x5E
APPLICATION_BLOCK, APPLICATION_UNBLOCK, CARD_BLOCK = 0x1E, 0x18, 0x16


class Lock(IntEnum):
    """應用鎖定."""

    OPEN = 0
    TEMPORARY = 1
    FOR_EVER = 2
    CARD = 3  # 卡片鎖定: nothing answers any more


@dataclass(slots=True)
class Memory:
    """What survives without power. Amounts in fen; logs newest first."""

    files: dict[int, bytes]
    pin: bytes | None
    balance_fen: int = 0
    online_atc: int = 0
    offline_atc: int = 0
    lock: Lock = Lock.OPEN
    purse_log: tuple[bytes, ...] = ()
    ride_log: tuple[bytes, ...] = ()
    capp_records: Mapping[int, bytes] = field(default_factory=dict)
    proofs: Mapping[int, tuple[int, bytes, bytes]] = field(default_factory=dict)  # TTI -> ATC after, MAC, TAC
    pin_tries: int = PIN_TRIES
    external_tries: int = EXTERNAL_TRIES
    mac1_failures: int = 0
    messaging_failures: int = 0


Handlers = Mapping[int, tuple[int, str]]  # INS -> CLA, name of the method


def exactly(command: Command, length: int) -> bytes:
    """The command's data, which must have this length (6700)."""
    if len(command.data) != length:
        raise StatusError(Sw.LENGTH)
    return command.data


def parameters(command: Command, p1: int, p2: int) -> None:
    """P1 and P2 must be these (6A86)."""
    if (command.p1, command.p2) != (p1, p2):
        raise StatusError(Sw.P1_P2)


def packed_pin(pin: str) -> bytes:
    """A PIN of 4 to 12 digits as VERIFY carries it: BCD, an odd last digit followed by F."""
    if not (4 <= len(pin) <= 12 and pin.isascii() and pin.isdecimal()):
        raise ValueError("a PIN has 4 to 12 digits")
    return bytes.fromhex(pin + "F" * (len(pin) % 2))


def _is_pin(data: bytes) -> bool:
    digits = data.hex().removesuffix("f")
    return digits.isdecimal()


class CardOs(ApduDevice):
    """A card without a purse. `transmit` takes APDUs; `reset` is the card leaving the field."""

    __slots__ = (
        "_authenticated",
        "_by_index",
        "_challenge",
        "_maintenance",
        "_profile",
        "_random",
        "_selected",
        "memory",
        "write_fails",
    )

    handlers: ClassVar[Handlers] = MappingProxyType(
        {
            SELECT: (0x00, "_select"),
            READ_BINARY: (0x00, "_read_binary"),
            READ_RECORD: (0x00, "_read_record"),
            UPDATE_BINARY: (0x04, "_update_binary"),
            GET_CHALLENGE: (0x00, "_get_challenge"),
            VERIFY: (0x00, "_verify"),
            EXTERNAL_AUTHENTICATE: (0x00, "_external_authenticate"),
            INTERNAL_AUTHENTICATE: (0x00, "_internal_authenticate"),
            CHANGE_PIN: (0x80, "_change_pin"),
            APPLICATION_BLOCK: (0x84, "_application_block"),
            APPLICATION_UNBLOCK: (0x84, "_application_unblock"),
            CARD_BLOCK: (0x84, "_card_block"),
        }
    )
    while_blocked: ClassVar[frozenset[int]] = frozenset(
        (SELECT, READ_BINARY, READ_RECORD, GET_CHALLENGE, APPLICATION_BLOCK, APPLICATION_UNBLOCK, CARD_BLOCK)
    )

    def __init__(
        self,
        profile: CardProfile,
        key_sets: Iterable[CardKeySet],
        *,
        pin: str | None = "123456",
        random: Callable[[int], bytes] = urandom,
    ) -> None:
        """The first key set also maintains the card (secure messaging, PIN reload)."""
        super().__init__()
        sets = tuple(key_sets)
        self._profile = profile
        self._by_index = {own.key_index: own for own in sets}
        self._maintenance = sets[0]
        self._random = random
        self.memory = Memory(profile.files(), None if pin is None else packed_pin(pin))
        self.write_fails = False  # the next change of permanent memory fails with 6581 and changes nothing
        self._forget()

    @property
    def profile(self) -> CardProfile:
        """What the card was made with."""
        return self._profile

    def reset(self) -> None:
        """The card leaves the field: selection, challenge and security state are gone."""
        super().reset()
        self._forget()

    def _forget(self) -> None:
        self._selected = False
        self._authenticated = False
        self._challenge = b""

    def answer(self, command: Command) -> bytes:
        """Check class, instruction and locks, then do it."""
        if command.cla not in (0x00, 0x04, 0x80, 0x84):
            raise StatusError(Sw.CLA)
        if command.ins not in self.handlers:
            raise StatusError(Sw.INS)
        cla, name = self.handlers[command.ins]
        if command.cla != cla:
            raise StatusError(Sw.CLA)
        challenge, self._challenge = self._challenge, b""  # serves the very next command and no other
        self._check_locks(command.ins)
        handle: Callable[[Command, bytes], bytes] = getattr(self, name)
        return handle(command, challenge)

    def _check_locks(self, ins: int) -> None:
        lock = self.memory.lock
        if lock is Lock.CARD:
            raise StatusError(Sw.NOT_SUPPORTED)
        if lock is Lock.FOR_EVER:
            if ins not in (GET_CHALLENGE, CARD_BLOCK):
                raise StatusError(Sw.LOCKED_FOR_EVER)
        elif not self._selected and ins not in (SELECT, GET_CHALLENGE):
            raise StatusError(Sw.STATE)
        elif lock is Lock.TEMPORARY and ins not in self.while_blocked:
            raise StatusError(Sw.NOT_SUPPORTED)

    def _commit(self, **changes: object) -> None:
        """Change permanent memory, all of it or nothing."""
        if self.write_fails:
            self.write_fails = False
            raise StatusError(Sw.MEMORY)
        for name, value in changes.items():
            setattr(self.memory, name, value)

    # --- files --------------------------------------------------------------------------------------------------

    def _select(self, command: Command, _challenge: bytes) -> bytes:
        parameters(command, 0x04, 0x00)
        if command.data not in AIDS:
            raise StatusError(Sw.FILE_NOT_FOUND)
        self._selected, self._authenticated = True, False
        proprietary = tlv("9F08", b"\x02") + tlv("9F0C", self.memory.files[PUBLIC_FILE])
        template = tlv("6F", tlv("84", command.data) + tlv("A5", proprietary))
        if self.memory.lock is Lock.TEMPORARY:
            raise StatusError(Sw.FILE_INVALID, template)
        return template

    def _transparent(self, command: Command) -> tuple[int, bytes]:
        if not command.p1 & 0x80:
            raise StatusError(Sw.P1_P2)
        sfi = command.p1 & 0x1F
        if sfi not in self.memory.files:
            raise StatusError(Sw.FILE_NOT_FOUND)
        return sfi, self.memory.files[sfi]

    def _read_binary(self, command: Command, _challenge: bytes) -> bytes:
        sfi, content = self._transparent(command)
        if sfi == HOLDER_FILE and not self._authenticated:
            raise StatusError(Sw.SECURITY_STATE)
        if command.p2 >= len(content):
            raise StatusError(Sw.P1_P2)
        return content[command.p2 : command.p2 + (command.le or 256)]

    def _read_record(self, command: Command, _challenge: bytes) -> bytes:
        if command.p2 & 0x07 != 0x04:
            raise StatusError(Sw.P1_P2)
        sfi = command.p2 >> 3
        if sfi == CAPP_FILE:
            if command.p1 not in self.memory.capp_records:
                raise StatusError(Sw.RECORD_NOT_FOUND)
            return self.memory.capp_records[command.p1]
        if sfi not in (PURSE_LOG, RIDE_LOG):
            raise StatusError(Sw.FILE_NOT_FOUND)
        records = self.memory.purse_log if sfi == PURSE_LOG else self.memory.ride_log
        if not 1 <= command.p1 <= len(records):
            raise StatusError(Sw.RECORD_NOT_FOUND)
        return records[command.p1 - 1]

    def _update_binary(self, command: Command, challenge: bytes) -> bytes:
        sfi, content = self._transparent(command)
        data = self._unwrapped(command, challenge)
        if not data:
            raise StatusError(Sw.LENGTH)
        end = command.p2 + len(data)
        if end > len(content):
            raise StatusError(Sw.P1_P2)
        self._commit(files=self.memory.files | {sfi: content[: command.p2] + data + content[end:]})
        return b""

    # --- security -----------------------------------------------------------------------------------------------

    def _get_challenge(self, command: Command, _challenge: bytes) -> bytes:
        parameters(command, 0x00, 0x00)
        if command.data or command.le not in (4, 8):
            raise StatusError(Sw.LENGTH)
        self._challenge = self._random(command.le)
        return self._challenge

    def _unwrapped(self, command: Command, challenge: bytes) -> bytes:
        """Data of a command under secure messaging, its MAC checked and taken off."""
        if len(command.data) < 4:
            raise StatusError(Sw.LENGTH)
        if len(challenge) != 4:
            raise StatusError(Sw.CONDITIONS)
        data, mac = command.data[:-4], command.data[-4:]
        own = self._maintenance
        key = self._key(own, KeyKind.MAINTENANCE)
        expected = crypto.secure_messaging_mac(own.algorithm, key, challenge, command.header, data)
        memory = self.memory
        if compare_digest(expected, mac):
            memory.messaging_failures = 0
            return data
        memory.messaging_failures += 1
        if memory.messaging_failures == MESSAGING_FAILURES_MAX and memory.lock < Lock.FOR_EVER:
            memory.lock = Lock(memory.lock + 1)  # an open application is locked; one already locked, for ever
            memory.messaging_failures = 0
        raise StatusError(Sw.SECURE_MESSAGING)

    @staticmethod
    def _key(own: CardKeySet, kind: KeyKind) -> bytes:
        if kind not in own.keys:
            raise StatusError(Sw.KEY_INDEX)
        return own.keys[kind]

    def _key_set(self, index: int) -> CardKeySet:
        if index not in self._by_index:
            raise StatusError(Sw.KEY_INDEX)
        return self._by_index[index]

    def _check_pin(self, pin: bytes) -> None:
        memory = self.memory
        if memory.pin is None:
            raise StatusError(Sw.CONDITIONS)
        if memory.pin_tries == 0:
            raise StatusError(Sw.AUTHENTICATION_BLOCKED)
        if not compare_digest(memory.pin, pin):
            memory.pin_tries -= 1
            raise StatusError(tries_left(memory.pin_tries))
        memory.pin_tries = PIN_TRIES

    def _verify(self, command: Command, _challenge: bytes) -> bytes:
        parameters(command, 0x00, 0x00)
        if not 2 <= len(command.data) <= 6:
            raise StatusError(Sw.LENGTH)
        self._check_pin(command.data)
        return b""

    def _change_pin(self, command: Command, _challenge: bytes) -> bytes:
        """P1 00 reload: new PIN, MAC under DRPK. P1 01 change: old PIN, FF, new PIN; the old PIN is the proof."""
        if command.p2 != 0 or command.p1 not in (0, 1):
            raise StatusError(Sw.P1_P2)
        if command.p1 == 0:
            new, mac = command.data[:-4], command.data[-4:]
            own = self._maintenance
            expected = crypto.tac(own.algorithm, self._key(own, KeyKind.RELOAD_PIN), new)
            if not compare_digest(expected, mac):
                raise StatusError(Sw.MAC_INVALID)
        else:
            old, separator, new = command.data.partition(b"\xff")
            if not separator:
                raise StatusError(Sw.DATA)
            self._check_pin(old)
        if not 2 <= len(new) <= 6:
            raise StatusError(Sw.LENGTH)
        if not _is_pin(new):
            raise StatusError(Sw.DATA)
        self._commit(pin=new, pin_tries=PIN_TRIES)
        return b""

    def _external_authenticate(self, command: Command, challenge: bytes) -> bytes:
        own = self._key_set(command.p2)
        exactly(command, crypto.Block(own.algorithm, bytes(16)).size)
        if self.memory.external_tries == 0:
            raise StatusError(Sw.AUTHENTICATION_BLOCKED)
        if len(challenge) != 8:
            raise StatusError(Sw.CONDITIONS)
        key = self._key(own, KeyKind.EXTERNAL)
        if not compare_digest(crypto.authentication_cryptogram(own.algorithm, key, challenge), command.data):
            self.memory.external_tries -= 1
            raise StatusError(tries_left(self.memory.external_tries))
        self.memory.external_tries = EXTERNAL_TRIES
        self._authenticated = True
        return b""

    def _internal_authenticate(self, command: Command, _challenge: bytes) -> bytes:
        own = self._key_set(command.p2)
        challenge = exactly(command, 8)
        return crypto.authentication_cryptogram(own.algorithm, self._key(own, KeyKind.INTERNAL), challenge)

    # --- locks --------------------------------------------------------------------------------------------------

    def _application_block(self, command: Command, challenge: bytes) -> bytes:
        if command.p1 not in (0, 1) or command.p2 != 0:
            raise StatusError(Sw.P1_P2)
        exactly(command, 4)
        self._unwrapped(command, challenge)
        self._commit(lock=Lock.FOR_EVER if command.p1 else Lock.TEMPORARY)
        return b""

    def _application_unblock(self, command: Command, challenge: bytes) -> bytes:
        parameters(command, 0x00, 0x00)
        exactly(command, 4)
        if self.memory.lock is not Lock.TEMPORARY:
            raise StatusError(Sw.CONDITIONS)
        self._unwrapped(command, challenge)
        self._commit(lock=Lock.OPEN)
        return b""

    def _card_block(self, command: Command, challenge: bytes) -> bytes:
        parameters(command, 0x00, 0x00)
        exactly(command, 4)
        self._unwrapped(command, challenge)
        self._commit(lock=Lock.CARD)
        return b""
