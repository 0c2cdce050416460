"""Changes of keys: entering components, drawing, rolling over, retiring. Every change is logged with its operators.

A master key enters as components, hex, that are XORed together; two operators are named (dual control 雙人控制), each
component and the result show their check value. The record and its log line are written together or not at all.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from switch.domain.errors import InputRefused
from switch.domain.people import as_seen
from switch.keys import sm2
from switch.keys.primitives import algorithm_named, random_key
from switch.keys.records import (
    CeremonyEntry,
    KeyLevel,
    KeyMissingError,
    KeyRecord,
    KeySpec,
    KeyState,
    KeyStore,
    check_value,
)
from switch.keys.sealing import Sealer
from switch.keys.software_vault import SoftwareVault

COMPONENTS_MIN: Final = 2
OPERATORS_MIN: Final = 2
PVK_BYTES: Final = 32

# What a state may become. Retiring destroys the key bytes, so nothing follows it.
NEXT_STATES = {
    KeyState.PRE_ACTIVE: (KeyState.ACTIVE, KeyState.RETIRED),
    KeyState.ACTIVE: (KeyState.VERIFY_ONLY, KeyState.RETIRED),
    KeyState.VERIFY_ONLY: (KeyState.RETIRED,),
    KeyState.RETIRED: (),
}
assert NEXT_STATES.keys() == set(KeyState)

# Of these only one version can be in use: the other side has changed too. Several versions of card keys are active
# side by side, for as long as cards of each are valid.
ONE_ACTIVE = frozenset({"TMMK", "ZMK", "ZPK", "ZAK", "SM2", "LSK", "ESK", "FSK"})


def read_component(text: str) -> bytes:
    """A component as 32 hex digits, blanks allowed; InputRefused without repeating it."""
    try:
        component = bytes.fromhex(text)
    except ValueError:
        component = b""
    if len(component) != 16:
        raise InputRefused("a component must be 32 hex digits")
    return component


def combine(components: Sequence[bytes]) -> bytes:
    """XOR of all components, 16 bytes."""
    combined = 0
    for component in components:
        combined ^= int.from_bytes(component)
    return combined.to_bytes(16)


def draw(spec: KeySpec) -> bytes:
    """Fresh key bytes of a kind: 16 for block ciphers, 32 for a PVK, private ‖ public for SM2."""
    if spec.algorithm == "SM2":
        pair = sm2.generate()
        return pair.private + pair.public
    if spec.algorithm == "SM3":
        return secrets.token_bytes(PVK_BYTES)
    return random_key(algorithm_named(spec.algorithm))


def seal_record(
    sealer: Sealer, spec: KeySpec, clear: bytes, state: KeyState, now: datetime, *, rehearsal: bool
) -> KeyRecord:
    """A record with its key bytes sealed; `valid_from` is now when it begins active."""
    spec = spec.checked()
    begins = now if state is KeyState.ACTIVE else None
    record = KeyRecord(
        name=spec.name,
        owner=spec.owner,
        key_type=spec.key_type,
        key_index=spec.key_index,
        version=spec.version,
        algorithm=spec.algorithm,
        level=spec.level,
        state=state,
        valid_from=begins,
        valid_to=None,
        kcv=check_value(spec.algorithm, clear),
        ciphertext=b"",
        rehearsal=rehearsal,
    )
    return record._replace(ciphertext=sealer.seal_record(record.bound_context(), clear))


class Custodian:
    """Changes the keys of one vault and its store; afterwards the vault knows them.

    operators: names of those present, at least two different ones unless `dual_control` is off (rehearsal).
    """

    def __init__(self, vault: SoftwareVault, store: KeyStore, *, dual_control: bool = True) -> None:
        if not dual_control and not vault.rehearsal:
            raise InputRefused("only a rehearsal vault does without dual control")
        self._vault = vault
        self._store = store
        self._dual_control = dual_control

    def _operators(self, operators: Sequence[str]) -> tuple[str, ...]:
        names = tuple(name.strip() for name in operators if name.strip())
        if self._dual_control and len({as_seen(name) for name in names}) < OPERATORS_MIN:
            raise InputRefused("dual control: two different operators must be named")
        return names or ("unnamed",)

    def _find(self, name: str) -> KeyRecord:
        for record in self._store.load_all():
            if record.name == name:
                return record
        raise KeyMissingError(f"there is no key {name}")

    def _write(self, records: Sequence[KeyRecord], action: str, operators: tuple[str, ...]) -> None:
        log = [
            CeremonyEntry(f"{action}: {record.state.value}", record.name, operators, record.kcv)
            for record in records
        ]
        self._store.save(records, log)
        self._vault.replace_records(self._store.load_all())

    def _install(
        self, spec: KeySpec, clear: bytes, state: KeyState, action: str, operators: tuple[str, ...]
    ) -> KeyRecord:
        """Seal a new key; predecessors step back where only one may be active. A name is never reused."""
        spec = spec.checked()
        existing = self._store.load_all()
        if any(record.name == spec.name for record in existing):
            raise InputRefused(f"there is a key {spec.name} already; a new key takes a new version")
        now = datetime.now(UTC)
        made = seal_record(self._vault.sealer, spec, clear, state, now, rehearsal=self._vault.rehearsal)
        self._write([*self._stepping_back(made, existing, now), made], action, operators)
        return made

    def _stepping_back(
        self, made: KeyRecord, existing: Sequence[KeyRecord], now: datetime
    ) -> list[KeyRecord]:
        if made.state is not KeyState.ACTIVE or made.key_type not in ONE_ACTIVE:
            return []
        return [
            self._in_state(record, KeyState.VERIFY_ONLY, now)
            for record in existing
            if record.state is KeyState.ACTIVE
            and record.name != made.name
            and (record.key_type, record.algorithm, record.owner)
            == (made.key_type, made.algorithm, made.owner)
        ]

    def _in_state(self, record: KeyRecord, state: KeyState, now: datetime) -> KeyRecord:
        """The record in another state, sealed anew because the state is bound in; retired: nothing sealed is left."""
        moved = record._replace(state=state)
        if state is KeyState.RETIRED:
            return moved._replace(valid_to=now, ciphertext=b"")
        if state is KeyState.ACTIVE:
            moved = moved._replace(valid_from=now)
        clear = self._vault.sealer.open_record(record.bound_context(), record.ciphertext)
        return moved._replace(ciphertext=self._vault.sealer.seal_record(moved.bound_context(), clear))

    def enter(
        self,
        spec: KeySpec,
        components: Sequence[bytes],
        operators: Sequence[str],
        *,
        state: KeyState = KeyState.ACTIVE,
        expected_kcv: bytes | None = None,
    ) -> KeyRecord:
        """Register a key from its components. InputRefused: too few, equal in pairs, all zero, or another check value."""
        names = self._operators(operators)
        if self._dual_control and len(components) < COMPONENTS_MIN:
            raise InputRefused(f"a key is entered as at least {COMPONENTS_MIN} components")
        if not components or any(len(component) != 16 for component in components):
            raise InputRefused("a component must be 16 bytes")
        clear = combine(components)
        if not any(clear):
            raise InputRefused("the components cancel out")
        spec = spec.checked()
        if spec.algorithm not in ("3DES", "SM4"):
            raise InputRefused(f"{spec.key_type} keys are drawn here, not entered")
        if expected_kcv is not None and check_value(spec.algorithm, clear) != expected_kcv:
            raise InputRefused(f"{spec.name}: the check value of the result is another")
        return self._install(spec, clear, state, "registered from components", names)

    def install_many(
        self, keys: Sequence[tuple[KeySpec, bytes, KeyState]], operators: Sequence[str]
    ) -> list[tuple[KeyRecord, bool]]:
        """Install combined keys of a rehearsal file, all or nothing; each record and whether it is new."""
        if not self._vault.rehearsal:
            raise InputRefused(
                "this vault is not marked for rehearsal: keys enter by a ceremony of components"
            )
        names, now = self._operators(operators), datetime.now(UTC)
        existing = {record.name: record for record in self._store.load_all()}
        outcome: list[tuple[KeyRecord, bool]] = []
        changed: dict[str, KeyRecord] = {}
        for spec, clear, state in keys:
            held = existing.get(spec.name)
            if held is not None:
                if held.kcv != check_value(spec.algorithm, clear) or held.state is KeyState.RETIRED:
                    raise InputRefused(
                        f"there is another key {spec.name} already; a new key takes a new version"
                    )
                outcome.append((held, False))
                continue
            made = seal_record(self._vault.sealer, spec, clear, state, now, rehearsal=True)
            for record in self._stepping_back(made, list(existing.values()), now):
                existing[record.name] = changed[record.name] = record
            existing[made.name] = changed[made.name] = made
            outcome.append((made, True))
        if changed:
            self._write(list(changed.values()), "registered from a rehearsal file", names)
        return outcome

    def generate(
        self, spec: KeySpec, operators: Sequence[str], *, state: KeyState = KeyState.ACTIVE
    ) -> KeyRecord:
        """Draw a key here. It leaves only wrapped, where its type allows that at all."""
        names = self._operators(operators)
        spec = spec.checked()
        return self._install(spec, draw(spec), state, "drawn", names)

    def import_wrapped(
        self, spec: KeySpec, under: str, wrapped: bytes, expected_kcv: bytes, operators: Sequence[str]
    ) -> KeyRecord:
        """Take a partner's ZPK or ZAK that came under a ZMK; InputRefused when its check value is another."""
        names = self._operators(operators)
        spec = spec.checked()
        if spec.key_type not in ("ZPK", "ZAK"):
            raise InputRefused("only ZPK and ZAK come wrapped under a ZMK")
        clear = self._vault.unwrapped(under, wrapped)
        if check_value(spec.algorithm, clear) != expected_kcv:
            raise InputRefused(f"{spec.name}: the check value is another")
        return self._install(spec, clear, KeyState.ACTIVE, f"received under {under}", names)

    def rotate(
        self, name: str, operators: Sequence[str], *, components: Sequence[bytes] = (), activate: bool = False
    ) -> KeyRecord:
        """Make the next version of a key: drawn here, or from components. Pre-active until activated.

        PVK: refused. Verifiers cannot be carried over to another key; every PIN would have to be set anew.
        """
        current = self._find(name)
        if current.key_type == "PVK":
            raise InputRefused("a PVK is not rotated: every PIN would have to be set anew")
        versions = [
            record.version
            for record in self._store.load_all()
            if (record.key_type, record.algorithm, record.owner)
            == (current.key_type, current.algorithm, current.owner)
        ]
        spec = KeySpec(
            current.key_type,
            current.algorithm,
            max(versions) + 1,
            current.owner,
            current.level,
            current.key_index,
        )
        state = KeyState.ACTIVE if activate else KeyState.PRE_ACTIVE
        if components:
            return self.enter(spec, components, operators, state=state)
        return self.generate(spec, operators, state=state)

    def set_state(self, name: str, state: KeyState, operators: Sequence[str]) -> KeyRecord:
        """Move a key along its life. Retiring destroys the key bytes for good; the record and its log stay."""
        names = self._operators(operators)
        record = self._find(name)
        if state not in NEXT_STATES[record.state]:
            raise InputRefused(f"{name} is {record.state.value}: it cannot become {state.value}")
        now = datetime.now(UTC)
        moved = self._in_state(record, state, now)
        action = "destroyed" if state is KeyState.RETIRED else "maintained"
        self._write([*self._stepping_back(moved, self._store.load_all(), now), moved], action, names)
        return moved

    def activate_together(self, names: Sequence[str], operators: Sequence[str]) -> list[KeyRecord]:
        """Activate keys that are only good together (a partner's ZAK and ZPK), all or none; done twice, it is done once."""
        present, now = self._operators(operators), datetime.now(UTC)
        existing = {record.name: record for record in self._store.load_all()}
        changed: dict[str, KeyRecord] = {}
        for name in names:
            record = existing.get(name)
            if record is None:
                raise KeyMissingError(f"there is no key {name}")
            if record.state is KeyState.ACTIVE:
                continue
            if KeyState.ACTIVE not in NEXT_STATES[record.state]:
                raise InputRefused(f"{name} is {record.state.value}: it cannot become active")
            moved = self._in_state(record, KeyState.ACTIVE, now)
            for stepped in self._stepping_back(moved, list(existing.values()), now):
                existing[stepped.name] = changed[stepped.name] = stepped
            existing[name] = changed[name] = moved
        if changed:
            self._write(list(changed.values()), "proved by the partner's MAC", present)
        return [existing[name] for name in names]


def zone_spec(key_type: str, algorithm: str, version: int, owner: str) -> KeySpec:
    """Spec of a partner's key."""
    return KeySpec(key_type, algorithm, version, owner, KeyLevel.ZONE, 1)
