"""The vault as the rest of the house sees it: operations by key name. Clear key bytes never leave it.

Implementations: `keys.software_vault.SoftwareVault` (default). A hardware module implements the same protocol.
A vault belongs to one thread (the event loop's); worker processes open their own (`keys.workers`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.primitives import Algorithm
from switch.keys.purse import LoadTerms, TacItem
from switch.keys.records import KeyRecord
from switch.keys.tac_columns import Flags, TacColumns

VERIFIER_BYTES = 16
VERIFIER_KEY = "PVK/SM3/v1/local"  # made with the vault; all PIN verifiers depend on it
CENTRE_SIGNING_KEY = "SM2/SM2/v1/local"  # made with the vault; signs key envelopes and clearing files
LIST_SIGNING_KEY = "LSK/SM2/v1/local"  # made with the vault; terminals are given its public half, and check their lists by it
EVIDENCE_SIGNING_KEY = "ESK/SM2/v1/local"  # made with the vault; signs the seals of days


class WorkingKeySet(NamedTuple):
    """Fresh working keys of one sign-on; nothing in it is clear."""

    field62: bytes  # 40 bytes, 60 with a track key: each key under the TMK, followed by its check value
    stored: bytes  # the set sealed for the database, bound to the terminal id

    def __repr__(self) -> str:
        return f"WorkingKeySet({len(self.field62)} + {len(self.stored)} bytes)"


class CardKeyRef(NamedTuple):
    """Which card keys are meant: what the card's INITIALIZE answer and its ASN say."""

    algorithm: int  # algorithm id, 0 or 4
    version: int
    issuer_id: bytes  # 8
    diversifier: bytes  # 8, the last 16 digits of the ASN


class WrappedKey(NamedTuple):
    """A key under another key, for transport (ECB, 16 bytes), with its check value."""

    wrapped: bytes
    kcv: bytes


class TerminalKeys(Protocol):
    """Working keys of one terminal, held open. Cheap to keep by the ten thousand."""

    @property
    def terminal_id(self) -> str:
        """Field 41."""

    @property
    def algorithm(self) -> Algorithm:
        """Algorithm of the working keys."""

    def mac(self, mab: bytes) -> bytes:
        """Field 64, 8 bytes, over the bytes from the MTI up to field 64. mab: not empty."""

    def verify(self, mab: bytes, field64: bytes) -> None:
        """Return None when field 64 is right, else raise MacMismatch."""


class Vault(Protocol):
    """Every cryptographic operation of the switch. KeyMissingError when a key is absent or its state forbids the use."""

    @property
    def rehearsal(self) -> bool:
        """Whether this vault is marked for rehearsal; production refuses to open such a one."""

    # --- terminals

    def new_working_keys(
        self, terminal_id: str, algorithm: Algorithm, with_track_key: bool, *, tmmk_version: int | None = None
    ) -> WorkingKeySet:
        """Draw PIK, MAK and, when asked, TDK. tmmk_version: whose TMK wraps them; the active one by default."""

    def open_session(self, terminal_id: str, stored: bytes, mac_algorithm: int) -> TerminalKeys:
        """Open a stored set of this terminal. mac_algorithm: 1 to 5, of the same cipher as the keys or ValueError.

        SealError when the set is another terminal's, another vault's or was altered.
        """

    def terminal_kcv(self, terminal_id: str, algorithm: Algorithm) -> bytes:
        """Check value of the terminal's master key TMK, 4 bytes."""

    def master_key_envelope(self, terminal_id: str, algorithm: Algorithm, public_key: bytes) -> bytes:
        """Answer to a TMK download, 182 bytes: algorithm id 1 ‖ SM2(TMK) 113 ‖ KCV 4 ‖ SM2 signature 64.

        public_key: the terminal's, 65 bytes; Sm2Error when it is not a point of the curve.
        """

    # --- PINs

    def pin_verifier(
        self, keys: TerminalKeys, block: bytes, pin_format: PinFormat, card: CardNumber, account_id: int
    ) -> bytes:
        """The 16-byte verifier of the PIN in a block under the terminal's PIK, or PinBlockError (answer 99)."""

    def pin_verifier_from_zone(
        self, zpk_name: str, block: bytes, pin_format: PinFormat, card: CardNumber, account_id: int
    ) -> bytes:
        """The same for a block under a named ZPK: PINs that arrive with card data from elsewhere."""

    def verifier_of_clear_pin(self, pin: str, account_id: int) -> bytes:
        """The verifier of a clear PIN, 4 to 12 digits or ValueError. InputRefused unless the vault is for rehearsal."""

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
        """A PIN block under the terminal's PIK, made anew under a partner's ZPK; PinBlockError when unreadable.

        zone_card: the number by which the partner knows the card, where that is another.
        """

    # --- purse

    def has_issuer_key(self, kind: str, issuer_id: bytes, version: int, algorithm: int) -> bool:
        """Whether card keys of this kind (DLK, DTK ...) can be derived for that issuer, version and algorithm id."""

    def verify_tacs(self, items: Sequence[TacItem]) -> list[bool]:
        """Check many offline TACs, in order; False also where the issuer key is missing (about 6 us each)."""

    def verify_tac_columns(self, columns: TacColumns) -> Flags:
        """The same for thousands that lie in columns."""

    def verify_load_mac1(self, card: CardKeyRef, terms: LoadTerms, mac1: bytes) -> None:
        """Return None when the card's MAC1 of INITIALIZE FOR LOAD is right, else raise MacMismatch."""

    def load_mac2(self, card: CardKeyRef, terms: LoadTerms, host_date: bytes, host_time: bytes) -> bytes:
        """MAC2 that lets the card credit itself, 4 bytes. host_date, host_time: BCD, 4 and 3 bytes."""

    def verify_load_tac(
        self, card: CardKeyRef, terms: LoadTerms, host_date: bytes, host_time: bytes, tac: bytes
    ) -> None:
        """Return None when the TAC of CREDIT FOR LOAD is right, else raise MacMismatch."""

    def maintenance_mac(self, card: CardKeyRef, challenge: bytes, command: bytes) -> bytes:
        """Secure messaging MAC, 4 bytes, over CLA INS P1 P2 Lc ‖ data; challenge: 4 bytes from GET CHALLENGE."""

    # --- partners

    def zone_mac(self, zak_name: str, mac_id: int, data: bytes) -> bytes:
        """A terminal-style MAC (ids 1 to 5, 8 bytes) under a partner's ZAK."""

    def verify_zone_mac(self, zak_name: str, mac_id: int, data: bytes, mac: bytes) -> None:
        """Return None when the partner's MAC is right, else raise MacMismatch.

        Also under a pre-active ZAK: by such a MAC a partner proves that it has the key that was sent to it.
        """

    def wrap(self, key_name: str, under: str) -> WrappedKey:
        """A partner's ZPK or ZAK under a ZMK of the same partner, for transport; other types are refused."""

    def sign(self, key_name: str, message: bytes) -> bytes:
        """SM2 signature r ‖ s, 64 bytes, by a named key."""

    def public_key(self, key_name: str) -> bytes:
        """Public half of a named SM2 key, 65 bytes."""

    # --- numbers of accounts elsewhere, which rest sealed

    def seal_account(self, number: CardNumber, context: bytes) -> bytes:
        """A number sealed for the database. context: what it belongs to; it opens for nothing else."""

    def open_account(self, sealed: bytes, context: bytes) -> CardNumber:
        """The number. SealError when it is another context's, another vault's or was altered."""

    def seal_bank_account(self, number: str, context: bytes) -> bytes:
        """As seal_account, for an account that is no card's: where money is paid out to."""

    def open_bank_account(self, sealed: bytes, context: bytes) -> str:
        """Its number. SealError as for open_account."""

    def account_tag(self, number: CardNumber) -> bytes:
        """16 bytes, always the same for a number in this vault: tells whether two sealed numbers are one."""

    # --- about keys

    def kcv(self, key_name: str) -> bytes:
        """Check value of a key, 4 bytes, whatever its state."""

    def records(self) -> list[KeyRecord]:
        """All key records, by name; nothing clear in them."""
