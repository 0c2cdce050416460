"""The local master key (LMK) 本地主密鑰: how it is unlocked, and how everything else rests sealed under it.

The LMK is 32 random bytes, itself sealed under a key made from a passphrase (scrypt, RFC 7914) or a key file (HKDF).
Sub-keys by HKDF-SHA256 keep the uses apart. Sealing is AES-256-GCM with a random 96-bit nonce; what a sealed value
is and belongs to is bound in as associated data, so nothing can be moved to another name, state or vault mode.
"""

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from switch.domain.errors import ConfigurationError, SwitchError

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
LMK_BYTES: Final = 32
ACCOUNT_TAG_BYTES: Final = 16
SALT_BYTES: Final = 16
PASSPHRASE_CHARACTERS_MIN: Final = 12
KEY_FILE_BYTES_MIN, KEY_FILE_BYTES_MAX = 32, 4096
SCRYPT_COST: Final = 1 << 15  # with r = 8: 32 MiB and about 0.1 s per attempt
FORMAT: Final = b"1"


class SealError(SwitchError):
    """A sealed value does not open: wrong local master key, or the value or what is bound to it was changed."""


class UnlockSecret:
    """What opens the vault: a passphrase or the content of a key file. Shows neither."""

    __slots__ = ("_secret", "method")

    def __init__(self, secret: bytes, method: str) -> None:
        self._secret = secret
        self.method = method  # "scrypt" or "hkdf"

    @classmethod
    def passphrase(cls, text: str) -> "UnlockSecret":
        """From a passphrase of at least twelve characters, taken without surrounding white space."""
        text = text.strip()
        if len(text) < PASSPHRASE_CHARACTERS_MIN:
            raise ConfigurationError(
                f"vault passphrase needs at least {PASSPHRASE_CHARACTERS_MIN} characters"
            )
        return cls(text.encode(), "scrypt")

    @classmethod
    def passphrase_file(cls, path: Path) -> "UnlockSecret":
        """From a file holding the passphrase."""
        return cls.passphrase(_read_private(path).decode(errors="strict"))

    @classmethod
    def key_file(cls, path: Path) -> "UnlockSecret":
        """From a file of 32 to 4096 random bytes."""
        content = _read_private(path)
        if not KEY_FILE_BYTES_MIN <= len(content) <= KEY_FILE_BYTES_MAX:
            raise ConfigurationError(
                f"vault key file must hold {KEY_FILE_BYTES_MIN} to {KEY_FILE_BYTES_MAX} bytes"
            )
        return cls(content, "hkdf")

    def __repr__(self) -> str:
        return f"UnlockSecret({self.method})"

    def wrapping_key(self, salt: bytes) -> bytes:
        """The 32 bytes under which the LMK rests."""
        if self.method == "scrypt":
            return Scrypt(salt=salt, length=32, n=SCRYPT_COST, r=8, p=1).derive(self._secret)
        return HKDF(hashes.SHA256(), 32, salt, b"vault key file").derive(self._secret)


def _read_private(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path}: others may read it; chmod 600")
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


class Sealer:
    """Seals and opens under sub-keys of one local master key."""

    __slots__ = ("_accounts", "_records", "_tags", "_working_keys")

    def __init__(self, lmk: bytes) -> None:
        self._records = AESGCM(_sub_key(lmk, b"key records"))
        self._working_keys = AESGCM(_sub_key(lmk, b"working keys"))
        self._accounts = AESGCM(_sub_key(lmk, b"account numbers"))
        self._tags = HMAC(_sub_key(lmk, b"account tags"), hashes.SHA256())

    def seal_record(self, context: bytes, clear: bytes) -> bytes:
        """Seal the bytes of a key record."""
        return _seal(self._records, context, clear)

    def open_record(self, context: bytes, sealed: bytes) -> bytes:
        """The bytes of a key record, or SealError."""
        return _open(self._records, context, sealed)

    def seal_working_keys(self, context: bytes, clear: bytes) -> bytes:
        """Seal a terminal's working keys."""
        return _seal(self._working_keys, context, clear)

    def open_working_keys(self, context: bytes, sealed: bytes) -> bytes:
        """A terminal's working keys, or SealError."""
        return _open(self._working_keys, context, sealed)

    def seal_account(self, context: bytes, clear: bytes) -> bytes:
        """Seal the digits of an account number."""
        return _seal(self._accounts, context, clear)

    def open_account(self, context: bytes, sealed: bytes) -> bytes:
        """The digits of an account number, or SealError."""
        return _open(self._accounts, context, sealed)

    def account_tag(self, clear: bytes) -> bytes:
        """16 bytes by which the same digits are known again: keyed, for digits alone could all be tried."""
        mac = self._tags.copy()
        mac.update(clear)
        return mac.finalize()[:ACCOUNT_TAG_BYTES]


def _sub_key(lmk: bytes, label: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, b"citizen card switch: " + label).derive(lmk)


def _seal(cipher: AESGCM, context: bytes, clear: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, clear, context)


def _open(cipher: AESGCM, context: bytes, sealed: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SealError("sealed value is too short")
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except InvalidTag as error:
        raise SealError("sealed value does not open") from error


def new_meta(unlock: UnlockSecret, *, rehearsal: bool) -> tuple[dict[str, bytes], bytes]:
    """Vault-wide values of a new vault, and its local master key."""
    lmk = os.urandom(LMK_BYTES)
    mode = b"rehearsal" if rehearsal else b"production"
    return sealed_meta(lmk, unlock, mode), lmk


def sealed_meta(lmk: bytes, unlock: UnlockSecret, mode: bytes) -> dict[str, bytes]:
    """Vault-wide values that let `unlock` open this local master key. The mode is bound into the seal."""
    salt = os.urandom(SALT_BYTES)
    sealed = _seal(AESGCM(unlock.wrapping_key(salt)), _lmk_context(mode, unlock.method.encode()), lmk)
    return {"format": FORMAT, "mode": mode, "unlock": unlock.method.encode(), "salt": salt, "lmk": sealed}


def unlock_lmk(meta: dict[str, bytes], unlock: UnlockSecret) -> bytes:
    """The local master key; ConfigurationError says why when it does not open."""
    if meta.get("format") != FORMAT or not meta.keys() >= {"mode", "unlock", "salt", "lmk"}:
        raise ConfigurationError("the vault is of a format that this version does not know")
    if meta["unlock"] != unlock.method.encode():
        wanted = "a passphrase" if meta["unlock"] == b"scrypt" else "a key file"
        raise ConfigurationError(f"this vault is unlocked by {wanted}")
    try:
        wrapping = AESGCM(unlock.wrapping_key(meta["salt"]))
        return _open(wrapping, _lmk_context(meta["mode"], meta["unlock"]), meta["lmk"])
    except SealError as error:
        raise ConfigurationError(
            "the vault does not open: wrong passphrase or key file, or it was altered"
        ) from error


def _lmk_context(mode: bytes, method: bytes) -> bytes:
    return b"local master key\x1f" + mode + b"\x1f" + method
