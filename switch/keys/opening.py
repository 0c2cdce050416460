"""Making and opening a vault: the one place where store, secret and vault come together.

A vault marked for rehearsal holds keys that people have seen; `production=True` refuses it. The mark is bound into the
seal of the local master key and of every record, so it cannot be taken off in the database.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg
from pydantic import SecretStr

from switch.domain.errors import ConfigurationError, InputRefused
from switch.keys.ceremony import Custodian, draw, seal_record
from switch.keys.records import LOCAL_OWNER, CeremonyEntry, KeyLevel, KeyRecord, KeySpec, KeyState, KeyStore
from switch.keys.sealing import Sealer, UnlockSecret, new_meta, sealed_meta, unlock_lmk
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import VAULT_EXISTS, DatabaseKeyStore
from switch.keys.terminal_keys import ENGINES_MAX
from switch.keys.vault import CENTRE_SIGNING_KEY, EVIDENCE_SIGNING_KEY, LIST_SIGNING_KEY, VERIFIER_KEY

_OWN_KEYS = (
    KeySpec("PVK", "SM3", 1, LOCAL_OWNER, KeyLevel.LOCAL, 1),
    KeySpec("SM2", "SM2", 1, LOCAL_OWNER, KeyLevel.LOCAL, 1),
    KeySpec("LSK", "SM2", 1, LOCAL_OWNER, KeyLevel.LOCAL, 1),
    KeySpec("ESK", "SM2", 1, LOCAL_OWNER, KeyLevel.LOCAL, 1),
)
assert [spec.name for spec in _OWN_KEYS] == [
    VERIFIER_KEY,
    CENTRE_SIGNING_KEY,
    LIST_SIGNING_KEY,
    EVIDENCE_SIGNING_KEY,
]


class VaultSettings(Protocol):
    """What of the settings says how the vault is unlocked. Exactly one of the three secrets must be given."""

    @property
    def passphrase(self) -> SecretStr | None:
        """The passphrase itself."""

    @property
    def passphrase_file(self) -> Path | None:
        """A file, mode 600, that holds it."""

    @property
    def key_file(self) -> Path | None:
        """A file, mode 600, of 32 to 4096 random bytes."""

    @property
    def production(self) -> bool:
        """Whether a rehearsal vault is refused."""


def unlock_secret(settings: VaultSettings) -> UnlockSecret:
    """The secret that the settings name; ConfigurationError when it is none or several."""
    phrase = settings.passphrase.get_secret_value() if settings.passphrase is not None else ""
    given = [bool(phrase), settings.passphrase_file is not None, settings.key_file is not None]
    if sum(given) != 1:
        raise ConfigurationError("vault: give exactly one of passphrase, passphrase_file and key_file")
    if settings.passphrase_file is not None:
        return UnlockSecret.passphrase_file(settings.passphrase_file)
    if settings.key_file is not None:
        return UnlockSecret.key_file(settings.key_file)
    return UnlockSecret.passphrase(phrase)


def create_vault(store: KeyStore, unlock: UnlockSecret, *, rehearsal: bool) -> SoftwareVault:
    """Make a new vault with its own keys (PIN verifiers, signatures of the centre, of lists and of days); InputRefused when the store has one."""
    if store.load_meta():
        raise InputRefused(VAULT_EXISTS)
    meta, lmk = new_meta(unlock, rehearsal=rehearsal)
    sealer, now = Sealer(lmk), datetime.now(UTC)
    records = [
        seal_record(sealer, spec, draw(spec), KeyState.ACTIVE, now, rehearsal=rehearsal) for spec in _OWN_KEYS
    ]
    log = [
        CeremonyEntry("drawn with the vault: active", record.name, ("system",), record.kcv)
        for record in records
    ]
    store.create(meta, records, log)
    return SoftwareVault(records, sealer, rehearsal=rehearsal)


def open_stored_vault(
    store: KeyStore, unlock: UnlockSecret, *, production: bool, engines_max: int = ENGINES_MAX
) -> SoftwareVault:
    """Open the store's vault. ConfigurationError: none there, wrong secret, or for rehearsal where production asks."""
    meta = store.load_meta()
    if not meta:
        raise ConfigurationError("there is no vault yet; `cardswitch init` makes one")
    rehearsal = meta.get("mode") != b"production"
    if rehearsal and production:
        raise ConfigurationError("this vault is marked for rehearsal; production does not open it")
    return SoftwareVault(
        store.load_all(), Sealer(unlock_lmk(meta, unlock)), rehearsal=rehearsal, engines_max=engines_max
    )


def open_vault(connection: psycopg.Connection[Any], settings: VaultSettings) -> SoftwareVault:
    """Open the vault of a database as the settings say. The connection is not kept."""
    return open_stored_vault(
        DatabaseKeyStore(connection), unlock_secret(settings), production=settings.production
    )


def change_unlock(store: KeyStore, old: UnlockSecret, new: UnlockSecret) -> None:
    """Let another passphrase or key file open the vault; the keys stay sealed as they are."""
    meta = store.load_meta()
    store.replace_meta(sealed_meta(unlock_lmk(meta, old), new, meta["mode"]))


def reload(vault: SoftwareVault, store: KeyStore) -> None:
    """Take in what a ceremony in another process has changed."""
    vault.replace_records(store.load_all())


def activate_proved(
    vault: SoftwareVault, store: KeyStore, names: Sequence[str], partner: str
) -> list[KeyRecord]:
    """Activate the keys that a partner's MAC has proved; returns all records, for `vault.replace_records`.

    Does not touch the vault it is given beyond its sealer, so that it may run in a thread while the vault serves. The two
    names that dual control asks for are those of the two sides whose agreement the MAC shows.
    """
    apart = SoftwareVault(store.load_all(), vault.sealer, rehearsal=vault.rehearsal)
    Custodian(apart, store).activate_together(names, ("switch", f"partner {partner}"))
    return apart.records()
