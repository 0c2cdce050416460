"""`cardswitch keys`: ceremonies under dual control, check values, roll-over. docs/keys.md, sections 8 to 10.

Components are asked for hidden, one custodian at a time, and appear nowhere; what is shown is check values. With `--json`,
prompts go to standard error and the result alone to standard output.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import typer

from switch.domain.errors import InputRefused
from switch.keys.ceremony import OPERATORS_MIN, Custodian, combine, read_component
from switch.keys.derivation import terminal_diversifier
from switch.keys.opening import open_vault
from switch.keys.primitives import algorithm_named
from switch.keys.records import (
    KEY_TYPES,
    ROOT_OWNER,
    SIGNING_TYPES,
    CeremonyEntry,
    KeyLevel,
    KeyRecord,
    KeySpec,
    KeyState,
    check_value,
    default_index,
)
from switch.keys.rehearsal import install_rehearsal_keys, read_rehearsal_file
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import DatabaseKeyStore
from switch.settings import load_settings
from switch.storage.embedded import open_database

COMPONENTS_MAX: Final = 8

app = typer.Typer(no_args_is_help=True, help="Key ceremonies, check values, roll-over.")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Operators = Annotated[
    list[str] | None,
    typer.Option("--operator", help="Who is present; give it twice. Asked for when left out."),
]
Name = Annotated[str, typer.Argument(help="Name of a key, e.g. DTK/SM4/v1/national.")]
KeyType = Annotated[str, typer.Option("--type", help=f"One of {', '.join(KEY_TYPES)}.")]
AlgorithmName = Annotated[str, typer.Option("--algorithm", help="3DES or SM4; SM2 for keys that sign.")]
Version = Annotated[int, typer.Option("--version", min=1, max=255)]
Owner = Annotated[str, typer.Option("--owner", help="Issuer id or partner; national for roots.")]
Level = Annotated[KeyLevel | None, typer.Option("--level", help="The type's first when left out.")]
Index = Annotated[int | None, typer.Option("--index", min=1, max=255, help="01 in 3DES, 41 (hex) in SM4.")]
Components = Annotated[
    int, typer.Option("--components", min=2, max=COMPONENTS_MAX, help="How many are entered.")
]


@contextmanager
def _vault() -> Iterator[tuple[SoftwareVault, DatabaseKeyStore]]:
    settings = load_settings()
    with open_database(settings) as url, psycopg.connect(url, autocommit=True) as connection:
        yield open_vault(connection, settings.unlock), DatabaseKeyStore(connection)


def _spec(
    key_type: str, algorithm: str, version: int, owner: str, level: KeyLevel | None, index: int | None
) -> KeySpec:
    rule = KEY_TYPES.get(key_type)
    if level is None:
        level = rule.levels[0] if rule else KeyLevel.ROOT
    owner = owner or (ROOT_OWNER if level is KeyLevel.ROOT else "")
    return KeySpec(
        key_type, algorithm, version, owner, level, index if index is not None else default_index(algorithm)
    ).checked()


def _operators(given: Sequence[str] | None) -> list[str]:
    names = list(given or ())
    while len(names) < OPERATORS_MIN:
        names.append(typer.prompt(f"Operator {len(names) + 1}", err=True))
    return names


def _components(count: int, algorithm: str) -> list[bytes]:
    """Ask each custodian in turn; the check value of what was typed is confirmed, or it is asked again."""
    components: list[bytes] = []
    while len(components) < count:
        text = typer.prompt(
            f"Component {len(components) + 1} of {count}, 32 hex digits", hide_input=True, err=True
        )
        try:
            component = read_component(text)
        except InputRefused as error:
            typer.echo(f"  {error}", err=True)
            continue
        shown = check_value(algorithm, component).hex().upper()
        if typer.confirm(f"  check value {shown}: right?", err=True):
            components.append(component)
    shown = check_value(algorithm, combine(components)).hex().upper()
    if not typer.confirm(f"Check value of the key: {shown}. Install it?", err=True):
        raise InputRefused("the custodians did not confirm the key; nothing was changed")
    return components


def _as_dict(record: KeyRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "type": record.key_type,
        "algorithm": record.algorithm,
        "version": record.version,
        "owner": record.owner,
        "level": record.level.value,
        "index": record.key_index,
        "state": record.state.value,
        "kcv": record.kcv.hex().upper(),
        "valid_from": record.valid_from and record.valid_from.isoformat(),
        "valid_to": record.valid_to and record.valid_to.isoformat(),
        "rehearsal": record.rehearsal,
    }


def _line(record: KeyRecord, note: str = "") -> str:
    return f"{record.name:<36} {record.state.value:<12} KCV {record.kcv.hex().upper()}{note}"


def _show(document: object, lines: Sequence[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, indent=1) if as_json else "\n".join(lines))


def _show_one(record: KeyRecord, *, as_json: bool) -> None:
    _show(_as_dict(record), [_line(record)], as_json=as_json)


@app.command("ceremony")
def ceremony(
    rehearsal: Annotated[
        Path | None,
        typer.Option(
            "--rehearsal", exists=True, dir_okay=False, help="A rehearsal file, instead of custodians."
        ),
    ] = None,
    key_type: KeyType = "",
    algorithm: AlgorithmName = "SM4",
    version: Version = 1,
    owner: Owner = "",
    level: Level = None,
    index: Index = None,
    components: Components = 2,
    state: Annotated[KeyState, typer.Option("--state", help="State to begin in.")] = KeyState.ACTIVE,
    operators: Operators = None,
    as_json: AsJson = False,
) -> None:
    """Enter a key as components under dual control, or all keys of a rehearsal file."""
    if (rehearsal is None) == (not key_type):
        raise typer.BadParameter("give either --type, to enter one key, or --rehearsal FILE")
    if rehearsal is not None:
        _rehearse(rehearsal, operators or (), as_json=as_json)
        return
    spec = _spec(key_type, algorithm, version, owner, level, index)
    if spec.algorithm not in ("3DES", "SM4"):
        raise InputRefused(f"{spec.key_type} keys are drawn by the vault, not entered")
    if state not in (KeyState.ACTIVE, KeyState.PRE_ACTIVE):
        raise typer.BadParameter("a key begins active or pre-active")
    with _vault() as (vault, store):
        custodian = Custodian(vault, store)
        names = _operators(operators)
        entered = _components(components, spec.algorithm)
        _show_one(custodian.enter(spec, entered, names, state=state), as_json=as_json)


def _rehearse(path: Path, operators: Sequence[str], *, as_json: bool) -> None:
    keys = read_rehearsal_file(path)
    with _vault() as (vault, store):
        if not vault.rehearsal:
            raise InputRefused(
                "this vault is not marked for rehearsal: keys enter by a ceremony of components"
            )
        custodian = Custodian(vault, store, dual_control=False)
        outcome = install_rehearsal_keys(custodian, keys, operators)
    _show(
        {"keys": [_as_dict(record) | {"new": new} for record, new in outcome]},
        [_line(record, "" if new else "  (was there)") for record, new in outcome],
        as_json=as_json,
    )


@app.command("generate")
def generate(
    key_type: KeyType,
    algorithm: AlgorithmName = "SM4",
    version: Version = 1,
    owner: Owner = "",
    level: Level = None,
    index: Index = None,
    operators: Operators = None,
    as_json: AsJson = False,
) -> None:
    """Draw a key in the vault."""
    spec = _spec(key_type, algorithm, version, owner, level, index)
    with _vault() as (vault, store):
        _show_one(Custodian(vault, store).generate(spec, _operators(operators)), as_json=as_json)


@app.command("rotate")
def rotate(
    name: Name,
    activate: Annotated[bool, typer.Option("--activate", help="Active at once, not pre-active.")] = False,
    components: Annotated[
        int, typer.Option("--components", min=0, max=COMPONENTS_MAX, help="Enter it; 0: drawn in the vault.")
    ] = 0,
    operators: Operators = None,
    as_json: AsJson = False,
) -> None:
    """Make the next version of a key."""
    if components == 1:
        raise typer.BadParameter("a key is entered as at least 2 components")
    with _vault() as (vault, store):
        algorithm = next((record.algorithm for record in vault.records() if record.name == name), "SM4")
        names = _operators(operators)
        entered = _components(components, algorithm) if components else []
        made = Custodian(vault, store).rotate(name, names, components=entered, activate=activate)
    _show_one(made, as_json=as_json)


@app.command("state")
def set_state(
    name: Name,
    state: Annotated[KeyState, typer.Argument(help="The state to move to; retired destroys the key.")],
    operators: Operators = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before destroying.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a key along its life."""
    with _vault() as (vault, store):
        names = _operators(operators)
        if state is KeyState.RETIRED and not yes:
            typer.confirm(f"{name} will be destroyed for good. Go on?", abort=True, err=True)
        _show_one(Custodian(vault, store).set_state(name, state, names), as_json=as_json)


@app.command("export")
def export(
    name: Name,
    under: Annotated[str, typer.Option("--under", help="Name of the ZMK.")],
    as_json: AsJson = False,
) -> None:
    """A partner's ZPK or ZAK under that partner's ZMK."""
    with _vault() as (vault, _):
        made = vault.wrap(name, under)
    wrapped, check = made.wrapped.hex().upper(), made.kcv.hex().upper()
    document = {"name": name, "under": under, "wrapped": wrapped, "kcv": check}
    _show(document, [f"{wrapped} KCV {check}"], as_json=as_json)


@app.command("import")
def import_key(
    key_type: KeyType,
    owner: Owner,
    under: Annotated[str, typer.Option("--under", help="Name of the ZMK.")],
    wrapped: Annotated[str, typer.Option("--wrapped", help="The key under the ZMK, 32 hex digits.")],
    check: Annotated[str, typer.Option("--kcv", help="Its check value, 8 hex digits.")],
    algorithm: AlgorithmName = "SM4",
    version: Version = 1,
    operators: Operators = None,
    as_json: AsJson = False,
) -> None:
    """Take a partner's ZPK or ZAK that came under a ZMK."""
    try:
        sealed, expected = bytes.fromhex(wrapped), bytes.fromhex(check)
    except ValueError:
        raise typer.BadParameter("--wrapped and --kcv are hexadecimal") from None
    spec = _spec(key_type, algorithm, version, owner, KeyLevel.ZONE, None)
    with _vault() as (vault, store):
        custodian = Custodian(vault, store)
        made = custodian.import_wrapped(spec, under, sealed, expected, _operators(operators))
    _show_one(made, as_json=as_json)


@app.command("kcv")
def kcv(
    name: Annotated[str, typer.Argument(help="Name of a key; all keys when left out.")] = "",
    terminal: Annotated[
        str, typer.Option("--terminal", help="The TMK of this terminal (field 41) instead.")
    ] = "",
    algorithm: AlgorithmName = "SM4",
    as_json: AsJson = False,
) -> None:
    """Check values: of a key, of all keys, or of a terminal's master key."""
    try:
        cipher = algorithm_named(algorithm)
        if terminal:
            terminal_diversifier(terminal)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with _vault() as (vault, _):
        if terminal:
            found = {f"TMK of {terminal}": vault.terminal_kcv(terminal, cipher)}
        elif name:
            found = {name: vault.kcv(name)}
        else:
            found = {record.name: record.kcv for record in vault.records()}
    shown = {key: value.hex().upper() for key, value in found.items()}
    _show(shown, [f"{value}  {key}" for key, value in shown.items()], as_json=as_json)


@app.command("list")
def list_keys(
    log: Annotated[bool, typer.Option("--log", help="The ceremony log instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """All keys with state and check value, or the ceremony log. Exit 1 when a key does not open."""
    with _vault() as (vault, store):
        if log:
            entries = store.load_log()
            _show([_entry(at, entry) for at, entry in entries], _log_lines(entries), as_json=as_json)
            return
        records, damaged = vault.records(), vault.damaged()
        public = {
            r.name: vault.public_key(r.name).hex().upper()
            for r in records
            if _signs(r) and r.name not in damaged
        }
    document = [
        _as_dict(record) | {"damaged": record.name in damaged} | _public(public.get(record.name))
        for record in records
    ]
    lines = [_line(record, "  DAMAGED" if record.name in damaged else "") for record in records]
    _show({"rehearsal": vault.rehearsal, "keys": document}, lines, as_json=as_json)
    if damaged:
        raise typer.Exit(1)


def _signs(record: KeyRecord) -> bool:
    return record.key_type in SIGNING_TYPES and record.state is not KeyState.RETIRED


def _public(key: str | None) -> dict[str, str]:
    return {} if key is None else {"public_key": key}


def _entry(at: datetime, entry: CeremonyEntry) -> dict[str, Any]:
    return {
        "at": at.isoformat(),
        "action": entry.action,
        "key": entry.key_name,
        "operators": list(entry.operators),
        "kcv": entry.kcv and entry.kcv.hex().upper(),
    }


def _log_lines(entries: Sequence[tuple[datetime, CeremonyEntry]]) -> list[str]:
    return [
        f"{at.isoformat(timespec='seconds')}  {entry.key_name:<36} {entry.action:<40} {', '.join(entry.operators)}"
        for at, entry in entries
    ]
