"""A host's keys: what it shares with the switch, and how a change of them takes effect. Its cryptography is the simulator's."""

from hmac import compare_digest
from typing import NamedTuple

from terminal_sim.crypto import (
    MAC_ALGORITHM,
    Algorithm,
    TerminalMac,
    pin_block,
    terminal_mac,
    unwrap_working_keys,
)

GRACE_S = 60.0  # after a change, for what is on its way on other connections


class Generation(NamedTuple):
    """A ZAK and a ZPK that are used together. Shows nothing of them."""

    mac: TerminalMac
    pin_key: bytes

    def __repr__(self) -> str:
        return "Generation(<hidden>)"


class ZoneSecrets(NamedTuple):
    """Keys in clear, as the two sides agreed on them. mac_id: 1 to 5."""

    zmk: bytes
    zak: bytes
    zpk: bytes
    mac_id: int

    def __repr__(self) -> str:
        return f"ZoneSecrets(mac_id={self.mac_id})"

    @property
    def algorithm(self) -> Algorithm:
        """Of all three keys."""
        return MAC_ALGORITHM[self.mac_id]


class HostKeyRing:
    """The generation in use, one that waits for its first good MAC, and for a while the one before."""

    def __init__(self, secrets: ZoneSecrets) -> None:
        self._zmk = secrets.zmk
        self._mac_id = secrets.mac_id
        self._algorithm = secrets.algorithm
        self.current = Generation(terminal_mac(secrets.mac_id, secrets.zak), secrets.zpk)
        self.waiting: Generation | None = None
        self._previous: Generation | None = None
        self._previous_until_s = 0.0
        self.changes = 0

    def verify(self, mab: bytes, mac: bytes, now_s: float) -> Generation | None:
        """Under which keys a MAC is right; None under none. The first good one under new keys puts them in force."""
        if compare_digest(self.current.mac.field64(mab), mac):
            return self.current
        if self.waiting is not None and compare_digest(self.waiting.mac.field64(mab), mac):
            self._previous, self._previous_until_s = self.current, now_s + GRACE_S
            self.current, self.waiting = self.waiting, None
            self.changes += 1
            return self.current
        previous = self._previous if now_s < self._previous_until_s else None
        if previous is not None and compare_digest(previous.mac.field64(mab), mac):
            return previous
        return None

    def receive(self, field62: bytes) -> Generation:
        """Take new keys under the ZMK; CheckValueError when they are not what their check values say. They wait."""
        keys = unwrap_working_keys(self._algorithm, self._zmk, field62)
        if keys.pin == self.current.pin_key:  # sent once more, by another process of the switch
            return self.current
        self.waiting = Generation(terminal_mac(self._mac_id, keys.mac), keys.pin)
        return self.waiting

    def pin_is(self, generation: Generation, block: bytes, pin: str, pan: str) -> bool:
        """Whether a block holds this PIN of this card."""
        return compare_digest(pin_block(self._algorithm, generation.pin_key, pin, pan), block)
