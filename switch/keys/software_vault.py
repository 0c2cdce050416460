"""The software vault: keys rest sealed under a local master key; operations happen here, in this process.

What this file adds to the primitives is the right to use a key: which record, in which state, for which purpose.
Bounds: derived issuer keys and opened key records are cached (CACHE_MAX each, oldest out), MAC contexts by the ring
of `terminal_keys`.
"""

from collections.abc import Sequence
from hmac import compare_digest
from typing import Final, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from switch.domain.errors import InputRefused, MacMismatch
from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys import purse, sm2
from switch.keys.derivation import CardKeyT, card_key, issuer_key, terminal_master_key
from switch.keys.macs import MacEngine, mac_engine, verify_field64
from switch.keys.pin_blocks import PIN_DIGITS_MAX, PIN_DIGITS_MIN, decrypt_pin, encrypt_pin
from switch.keys.primitives import (
    Algorithm,
    LoadKey,
    MacKey,
    MaintenanceKey,
    MasterKey,
    PinKey,
    TacKey,
    WrappingKey,
    algorithm_named,
    block_cipher,
    kcv,
)
from switch.keys.purse import LoadTerms, TacItem
from switch.keys.records import (
    ALGORITHM_LABELS,
    SIGNING_TYPES,
    KeyLevel,
    KeyMissingError,
    KeyRecord,
    KeyState,
    check_value,
)
from switch.keys.sealing import Sealer, SealError
from switch.keys.tac_columns import Flags, TacColumns, verify_tac_columns
from switch.keys.terminal_keys import (
    ENGINES_MAX,
    EngineRing,
    SoftwareTerminalKeys,
    draw_working_keys,
    open_working_keys,
)
from switch.keys.vault import (
    CENTRE_SIGNING_KEY,
    VERIFIER_BYTES,
    VERIFIER_KEY,
    CardKeyRef,
    TerminalKeys,
    WorkingKeySet,
    WrappedKey,
)

CACHE_MAX: Final = 1024
VERIFY_STATES = frozenset({KeyState.ACTIVE, KeyState.VERIFY_ONLY})
PROVING_STATES = VERIFY_STATES | {KeyState.PRE_ACTIVE}
ACTIVE_ONLY = frozenset({KeyState.ACTIVE})
ANY_STATE = frozenset(KeyState)

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class SoftwareVault:
    """Implements `vault.Vault` over sealed records. Made by `keys.opening`."""

    def __init__(
        self, records: Sequence[KeyRecord], sealer: Sealer, *, rehearsal: bool, engines_max: int = ENGINES_MAX
    ) -> None:
        self.sealer = sealer
        self._rehearsal = rehearsal
        self._ring = EngineRing(engines_max)
        self.replace_records(records)

    def __repr__(self) -> str:
        return f"<software vault, {len(self._records)} keys{', rehearsal' if self._rehearsal else ''}>"

    @property
    def rehearsal(self) -> bool:
        """Whether this vault is marked for rehearsal."""
        return self._rehearsal

    def replace_records(self, records: Sequence[KeyRecord]) -> None:
        """Take the store's records as they are now, and forget everything derived from the old ones."""
        self._records = {record.name: record for record in records}
        self._masters: dict[tuple[str, int, int, bytes], MasterKey] = {}
        self._engines: dict[tuple[str, int], MacEngine] = {}
        self._verifier: HMAC | None = None
        self._roots = {
            (record.key_type, record.algorithm, record.version): record
            for record in records
            if record.level is KeyLevel.ROOT and record.usable
        }

    # --- records

    def records(self) -> list[KeyRecord]:
        """All key records, by name; nothing clear in them."""
        return [self._records[name] for name in sorted(self._records)]

    def kcv(self, key_name: str) -> bytes:
        """Check value of a key, 4 bytes, whatever its state."""
        return self._record(key_name, (), ANY_STATE).kcv

    def _record(self, name: str, key_types: tuple[str, ...], states: frozenset[KeyState]) -> KeyRecord:
        record = self._records.get(name)
        if record is None:
            raise KeyMissingError(f"there is no key {name}")
        if key_types and record.key_type not in key_types:
            raise KeyMissingError(f"key {name} is not for this use")
        if record.state not in states:
            raise KeyMissingError(f"key {name} is {record.state.value}")
        return record

    def damaged(self) -> list[str]:
        """Names of keys that do not open or whose check value is another; empty when all is well."""
        names = []
        for record in self.records():
            try:
                if (
                    record.state is not KeyState.RETIRED
                    and check_value(record.algorithm, self._clear(record)) != record.kcv
                ):
                    names.append(record.name)
            except SealError:
                names.append(record.name)
        return names

    def _clear(self, record: KeyRecord) -> bytes:
        return self.sealer.open_record(record.bound_context(), record.ciphertext)

    # --- terminals

    def _tmk(self, terminal_id: str, algorithm: Algorithm, version: int | None) -> WrappingKey:
        if version is None:
            version = max(
                (
                    key[2]
                    for key, record in self._roots.items()
                    if key[:2] == ("TMMK", algorithm.label) and record.state is KeyState.ACTIVE
                ),
                default=None,
            )
        tmmk = None if version is None else self._root("TMMK", algorithm, version)
        if tmmk is None:
            raise KeyMissingError(f"there is no usable TMMK for {algorithm.label}")
        return terminal_master_key(tmmk, terminal_id)

    def _root(self, kind: str, algorithm: Algorithm, version: int) -> MasterKey | None:
        place = (kind, int(algorithm), version, b"")
        master = self._masters.get(place)
        if master is None:
            record = self._roots.get((kind, algorithm.label, version))
            if record is None:
                return None
            master = _remember(self._masters, place, MasterKey(self._clear(record), algorithm, kind))
        return master

    def new_working_keys(
        self, terminal_id: str, algorithm: Algorithm, with_track_key: bool, *, tmmk_version: int | None = None
    ) -> WorkingKeySet:
        """Draw PIK, MAK and, when asked, TDK; wrapped under the TMK and sealed for the database."""
        tmk = self._tmk(terminal_id, algorithm, tmmk_version)
        return draw_working_keys(
            tmk, terminal_id, self.sealer, with_track_key=with_track_key, rehearsal=self._rehearsal
        )

    def open_session(self, terminal_id: str, stored: bytes, mac_algorithm: int) -> SoftwareTerminalKeys:
        """Open a stored set of this terminal; SealError, or ValueError for a MAC id of the other algorithm."""
        return open_working_keys(
            terminal_id, stored, mac_algorithm, self.sealer, self._ring, rehearsal=self._rehearsal
        )

    def terminal_kcv(self, terminal_id: str, algorithm: Algorithm) -> bytes:
        """Check value of the terminal's master key TMK, 4 bytes."""
        return kcv(self._tmk(terminal_id, algorithm, None))

    def master_key_envelope(self, terminal_id: str, algorithm: Algorithm, public_key: bytes) -> bytes:
        """Answer to a TMK download: algorithm id ‖ SM2(TMK) ‖ KCV ‖ signature over all before it."""
        tmk = self._tmk(terminal_id, algorithm, None)
        body = bytes((algorithm,)) + sm2.encrypt(public_key, tmk.reveal()) + kcv(tmk)
        return body + self.sign(CENTRE_SIGNING_KEY, body)

    # --- PINs

    def pin_verifier(
        self, keys: TerminalKeys, block: bytes, pin_format: PinFormat, card: CardNumber, account_id: int
    ) -> bytes:
        """The verifier of the PIN in a block under the terminal's PIK, or PinBlockError."""
        return self._verifier_of(decrypt_pin(_own(keys).pin_key(), block, pin_format, card), account_id)

    def pin_verifier_from_zone(
        self, zpk_name: str, block: bytes, pin_format: PinFormat, card: CardNumber, account_id: int
    ) -> bytes:
        """The verifier of the PIN in a block under a named ZPK, or PinBlockError."""
        zpk = self._zone_pin_key(zpk_name, VERIFY_STATES)
        return self._verifier_of(decrypt_pin(zpk, block, pin_format, card), account_id)

    def verifier_of_clear_pin(self, pin: str, account_id: int) -> bytes:
        """The verifier of a clear PIN; only in rehearsal, else InputRefused."""
        if not self._rehearsal:
            raise InputRefused("clear PINs are taken by a rehearsal vault only")
        if not (PIN_DIGITS_MIN <= len(pin) <= PIN_DIGITS_MAX and pin.isascii() and pin.isdecimal()):
            raise ValueError("PIN must be 4 to 12 digits")
        return self._verifier_of(pin, account_id)

    def translate_pin(
        self,
        keys: TerminalKeys,
        block: bytes,
        pin_format: PinFormat,
        card: CardNumber,
        zpk_name: str,
        zone_format: PinFormat,
        *,
        zone_card: CardNumber | None = None,
    ) -> bytes:
        """A PIN block under the terminal's PIK, made anew under a partner's ZPK; PinBlockError when unreadable."""
        zpk = self._zone_pin_key(zpk_name, ACTIVE_ONLY)
        pin = decrypt_pin(_own(keys).pin_key(), block, pin_format, card)
        return encrypt_pin(zpk, pin, zone_format, card if zone_card is None else zone_card)

    def _zone_pin_key(self, name: str, states: frozenset[KeyState]) -> PinKey:
        record = self._record(name, ("ZPK",), states)
        return PinKey(self._clear(record), algorithm_named(record.algorithm))

    def _verifier_of(self, pin: str, account_id: int) -> bytes:
        """HMAC-SM3 over a label, the account id (8 bytes, signed) and the digits, cut to 16 bytes."""
        if self._verifier is None:
            record = self._record(VERIFIER_KEY, ("PVK",), ACTIVE_ONLY)
            self._verifier = HMAC(self._clear(record), hashes.SM3())
        mac = self._verifier.copy()
        mac.update(b"PIN\x01" + account_id.to_bytes(8, signed=True) + pin.encode())
        return mac.finalize()[:VERIFIER_BYTES]

    # --- purse

    def has_issuer_key(self, kind: str, issuer_id: bytes, version: int, algorithm: int) -> bool:
        """Whether card keys of this kind can be derived for that issuer, version and algorithm id."""
        return self._issuer_record(kind, algorithm, version, issuer_id) is not None

    def _issuer_record(self, kind: str, algorithm: int, version: int, issuer_id: bytes) -> KeyRecord | None:
        """The issuer's own key when there is one in the vault, else the root from which it derives."""
        label = ALGORITHM_LABELS.get(algorithm, "")
        own = self._records.get(f"{kind}/{label}/v{version}/{issuer_id.hex().upper()}")
        if own is not None and own.level is KeyLevel.ISSUER and own.usable:
            return own
        return self._roots.get((kind, label, version))

    def _issuer_master(self, kind: str, algorithm: int, version: int, issuer_id: bytes) -> MasterKey | None:
        place = (kind, algorithm, version, issuer_id)
        master = self._masters.get(place)
        if master is not None:
            return master
        record = self._issuer_record(kind, algorithm, version, issuer_id)
        if record is None:
            return None
        master = MasterKey(self._clear(record), Algorithm(algorithm), kind)
        if record.level is KeyLevel.ROOT:
            master = issuer_key(master, issuer_id)
        return _remember(self._masters, place, master)

    def _card_key(self, card: CardKeyRef, kind: type[CardKeyT], states: frozenset[KeyState]) -> CardKeyT:
        name = getattr(kind, "kind", "")
        record = self._issuer_record(name, card.algorithm, card.version, card.issuer_id)
        master = self._issuer_master(name, card.algorithm, card.version, card.issuer_id)
        if master is None or record is None or record.state not in states:
            raise KeyMissingError(f"there is no usable {name} of this version and algorithm")
        return card_key(master, card.diversifier, kind)

    def verify_tacs(self, items: Sequence[TacItem]) -> list[bool]:
        """Check many offline TACs, in order; False also where the issuer key is missing."""
        masters = {}
        for group in {item[:3] for item in items}:
            algorithm, version, issuer_id = group
            master = self._issuer_master(TacKey.kind, algorithm, version, issuer_id)
            if master is not None:
                masters[group] = master
        return purse.verify_tacs(masters, items)

    def verify_tac_columns(self, columns: TacColumns) -> Flags:
        """The same for thousands that lie in columns."""
        return verify_tac_columns(
            columns,
            lambda algorithm, version, issuer_id: self._issuer_master(
                TacKey.kind, algorithm, version, issuer_id
            ),
        )

    def verify_load_mac1(self, card: CardKeyRef, terms: LoadTerms, mac1: bytes) -> None:
        """Return None when MAC1 of INITIALIZE FOR LOAD is right, else raise MacMismatch."""
        session = purse.load_session_key(
            self._card_key(card, LoadKey, ACTIVE_ONLY), terms.card_random, terms.online_atc
        )
        if not compare_digest(purse.session_mac(session, purse.load_mac1_input(terms)), mac1):
            raise MacMismatch("MAC1 of the load is wrong")

    def load_mac2(self, card: CardKeyRef, terms: LoadTerms, host_date: bytes, host_time: bytes) -> bytes:
        """MAC2 that lets the card credit itself, 4 bytes."""
        session = purse.load_session_key(
            self._card_key(card, LoadKey, ACTIVE_ONLY), terms.card_random, terms.online_atc
        )
        data = purse.load_mac2_input(terms.amount_fen, terms.terminal_no, host_date, host_time)
        return purse.session_mac(session, data)

    def verify_load_tac(
        self, card: CardKeyRef, terms: LoadTerms, host_date: bytes, host_time: bytes, tac: bytes
    ) -> None:
        """Return None when the TAC of CREDIT FOR LOAD is right, else raise MacMismatch."""
        made = purse.tac(
            self._card_key(card, TacKey, VERIFY_STATES), purse.load_tac_input(terms, host_date, host_time)
        )
        if not compare_digest(made, tac):
            raise MacMismatch("TAC of the load is wrong")

    def maintenance_mac(self, card: CardKeyRef, challenge: bytes, command: bytes) -> bytes:
        """Secure messaging MAC, 4 bytes."""
        return purse.maintenance_mac(self._card_key(card, MaintenanceKey, ACTIVE_ONLY), challenge, command)

    # --- partners

    def _zone_engine(self, name: str, mac_id: int, states: frozenset[KeyState]) -> MacEngine:
        record = self._record(name, ("ZAK",), states)
        engine = self._engines.get((name, mac_id))
        if engine is None:
            key = MacKey(self._clear(record), algorithm_named(record.algorithm))
            engine = _remember(self._engines, (name, mac_id), mac_engine(mac_id, key))
        return engine

    def zone_mac(self, zak_name: str, mac_id: int, data: bytes) -> bytes:
        """A terminal-style MAC (ids 1 to 5, 8 bytes) under a partner's ZAK."""
        return self._zone_engine(zak_name, mac_id, ACTIVE_ONLY).field64(data)

    def verify_zone_mac(self, zak_name: str, mac_id: int, data: bytes, mac: bytes) -> None:
        """Return None when the partner's MAC is right, also under a key it has only just been sent, else MacMismatch."""
        verify_field64(self._zone_engine(zak_name, mac_id, PROVING_STATES), data, mac)

    def wrap(self, key_name: str, under: str) -> WrappedKey:
        """A partner's ZPK or ZAK under a ZMK of the same partner, for transport."""
        record = self._record(key_name, ("ZPK", "ZAK"), VERIFY_STATES | {KeyState.PRE_ACTIVE})
        zmk = self._record(under, ("ZMK",), ACTIVE_ONLY)
        if record.owner != zmk.owner:
            raise KeyMissingError(f"{under} belongs to another partner")
        wrapped = block_cipher(self._zone_wrapping_key(zmk)).encrypt(self._clear(record))
        return WrappedKey(wrapped, record.kcv)

    def unwrapped(self, under: str, wrapped: bytes) -> bytes:
        """A key as it came under a ZMK, for `ceremony.import_wrapped` alone, which seals it at once."""
        if len(wrapped) != 16:
            raise InputRefused("a wrapped key must be 16 bytes")
        return block_cipher(self._zone_wrapping_key(self._record(under, ("ZMK",), ACTIVE_ONLY))).decrypt(
            wrapped
        )

    def _zone_wrapping_key(self, record: KeyRecord) -> WrappingKey:
        return WrappingKey(self._clear(record), algorithm_named(record.algorithm))

    def _pair(self, name: str, states: frozenset[KeyState]) -> sm2.KeyPair:
        clear = self._clear(self._record(name, SIGNING_TYPES, states))
        return sm2.KeyPair(clear[:32], clear[32:])

    def sign(self, key_name: str, message: bytes) -> bytes:
        """SM2 signature r ‖ s, 64 bytes, by a named key."""
        return sm2.sign(self._pair(key_name, ACTIVE_ONLY), message)

    def public_key(self, key_name: str) -> bytes:
        """Public half of a named SM2 key, 65 bytes, whatever its state."""
        return self._pair(key_name, ANY_STATE).public

    # --- numbers of accounts elsewhere

    def seal_account(self, number: CardNumber, context: bytes) -> bytes:
        """A number sealed for the database, bound to what it belongs to."""
        return self.sealer.seal_account(self._account_context(context), number.reveal().encode())

    def open_account(self, sealed: bytes, context: bytes) -> CardNumber:
        """The number, or SealError."""
        return CardNumber(self.sealer.open_account(self._account_context(context), sealed).decode())

    def seal_bank_account(self, number: str, context: bytes) -> bytes:
        """The number of an account that is no card's, sealed likewise."""
        return self.sealer.seal_account(self._account_context(context), number.encode())

    def open_bank_account(self, sealed: bytes, context: bytes) -> str:
        """The number, or SealError."""
        return self.sealer.open_account(self._account_context(context), sealed).decode()

    def account_tag(self, number: CardNumber) -> bytes:
        """16 bytes by which the same number is known again."""
        return self.sealer.account_tag(number.reveal().encode())

    def _account_context(self, context: bytes) -> bytes:
        return (
            b"account number\x1f" + (b"rehearsal" if self._rehearsal else b"production") + b"\x1f" + context
        )


def _own(keys: TerminalKeys) -> SoftwareTerminalKeys:
    if not isinstance(keys, SoftwareTerminalKeys):
        raise TypeError("these working keys were opened by another vault")
    return keys


def _remember(cache: dict[KeyT, ValueT], place: KeyT, value: ValueT) -> ValueT:
    """Put a value into a bounded cache; the oldest entry goes when it is full."""
    while len(cache) >= CACHE_MAX:
        del cache[next(iter(cache))]
    cache[place] = value
    return value
