"""A vault with a key that signs files."""

from pathlib import Path
from typing import Final

from switch.keys.ceremony import Custodian
from switch.keys.opening import create_vault
from switch.keys.records import LOCAL_OWNER, KeyLevel, KeySpec
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore

FSK: Final = "FSK/SM2/v1/local"


def signing_vault(folder: Path) -> SoftwareVault:
    """A vault whose only key is FSK."""
    store = JsonKeyStore(folder / "keys.json")
    vault = create_vault(store, UnlockSecret.passphrase("correct horse battery"), rehearsal=True)
    spec = KeySpec("FSK", "SM2", 1, LOCAL_OWNER, KeyLevel.LOCAL, 1)
    Custodian(vault, store).generate(spec, ("li wei", "wang fang"))
    return vault
