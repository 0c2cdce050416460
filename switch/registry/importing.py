"""Import of everybody who takes part: checked as a whole, then written in one transaction, or not at all.

    read        files row by row into staging tables (COPY); what cannot be read is a fault
    check       duplicates, references, and the rules that need more than one row; all faults are reported together
    write       new and changed records, each with its line in registry_change; nothing for what is unchanged
    announce    NOTIFY registry, which reaches others with the commit

The same files again change nothing. Cards and their money are in registry/card_import.py, bank cards in registry/binding_import.py.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from switch.registry.binding_import import BindingImport, SealNumbers
from switch.registry.card_import import CardImport, ClearPins, EnterDay, Kept, Openings, Tally
from switch.registry.import_files import FAULTS_MAX, Faults, Row, Source, read_files
from switch.registry.import_format import (
    BINDINGS,
    BY_NAME,
    CARDS,
    KINDS,
    PLAIN,
    Kind,
    Record,
    subject,
)
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "importing.sql")

PROGRESS_ROWS: Final = 10_000


class Report(NamedTuple):
    """What an import did, or would do (dry run). openings: by account code, postings and fen. kept: cards whose state stayed.

    ended: bindings that stayed ended where the files say ACTIVE.
    """

    kinds: dict[str, Tally]
    openings: dict[int, Openings]
    business_date: date | None  # of the opening postings, if there were any
    dry_run: bool
    kept: list[Kept]
    ended: int = 0

    @property
    def nothing_changed(self) -> bool:
        """Whether all was as it was already."""
        return not any(tally.created or tally.changed for tally in self.kinds.values())

    @property
    def only_bindings_changed(self) -> bool:
        """Whether nothing else must be read again by those who serve."""
        return {name for name, tally in self.kinds.items() if tally.created or tally.changed} == {"bindings"}


def import_registry(
    connection: psycopg.Connection[Any],
    paths: Sequence[Path],
    *,
    shards: int,
    actor: str,
    enter_day: EnterDay,
    pins: Callable[[], ClearPins],
    numbers: Callable[[], SealNumbers],
    following: Collection[tuple[int, int]],
    dry_run: bool = False,
    progress: Callable[[str, int], None] = lambda step, rows: None,
) -> Report:
    """Read, check and write files; see the module.

    connection: of its own, not in a transaction. actor: who answers for it, for registry_change.
    pins, numbers: open the vault; called only when a file holds PINs, or numbers of bank cards.
    following: pairs of a card's state and one that a file may put in its place; the table of card states is the ledger's.
    progress: is told the step and how many rows it has done.

    Raises ImportRefused with all faults (at most 100), or what `enter_day` and `pins` raise; nothing is changed then.
    """
    sources = [Source(path) for path in paths]
    return take_in(
        connection,
        sources,
        lambda faults: read_files(sources, faults),
        shards=shards,
        actor=actor,
        enter_day=enter_day,
        pins=pins,
        numbers=numbers,
        following=following,
        dry_run=dry_run,
        progress=progress,
    )


def take_in(
    connection: psycopg.Connection[Any],
    sources: Sequence[Source],
    rows: Callable[[Faults], Iterator[Row]],
    *,
    shards: int,
    actor: str,
    enter_day: EnterDay,
    pins: Callable[[], ClearPins],
    numbers: Callable[[], SealNumbers],
    following: Collection[tuple[int, int]],
    reason: str = "",
    dry_run: bool = False,
    progress: Callable[[str, int], None] = lambda step, rows: None,
) -> Report:
    """As import_registry, for records from anywhere. reason: why, noted with each binding."""
    faults = Faults()
    with connection.transaction(force_rollback=dry_run), psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_SQL["one_import"])
        bindings = BindingImport(cursor, sources, numbers)
        staged = _stage(cursor, rows(faults), bindings, progress)
        progress("checking", 0)
        for kind in KINDS:
            _report(faults, sources, _duplicates(cursor, kind))
        if not faults.found:
            _compare(cursor)
        for kind in KINDS:
            for reference in kind.references:
                if reference.kind not in faults.kinds:
                    _report(
                        faults, sources, _dangling(cursor, kind, reference.column, BY_NAME[reference.kind])
                    )
        cards = CardImport(cursor, sources, shards=shards, following=following, progress=progress)
        if not faults.found:
            for kind_name, query in _checks():
                found = cursor.execute(query).fetchmany(FAULTS_MAX + 1)
                _report(faults, sources, [(BY_NAME[kind_name], *row) for row in found])
            cards.plan(faults)
        faults.refuse_if_any()
        cards.verify_pins(staged.pins, pins, faults)
        bindings.plan(faults)
        faults.refuse_if_any()
        progress("writing", 0)
        kinds = {kind.name: _save(cursor, actor, kind, staged[kind.name]) for kind in PLAIN}
        bound, ended = bindings.save(actor, reason)
        kinds["cards"], openings, business_date = cards.save(actor, None if dry_run else enter_day)
        kinds["bindings"] = bound
        if kinds["terminals"].changed:  # last: uploads of those terminals wait from here to the commit
            cursor.execute(_SQL["end_sessions"])
            cursor.execute(_SQL["drop_ended_keys"])
        report = Report(kinds, openings, business_date, dry_run, cards.kept(), ended)
        if report.only_bindings_changed:
            bindings.announce()
        elif not report.nothing_changed:
            cursor.execute(_SQL["announce_all"])
        progress("committing", 0)
    return report


class Staged(dict[str, int]):
    """Rows staged by kind, and the PINs that came with cards, by file and row; they stay in this process."""

    def __init__(self) -> None:
        super().__init__({kind.name: 0 for kind in KINDS})
        self.pins: dict[tuple[int, int], str] = {}

    def __repr__(self) -> str:
        return f"<{sum(self.values())} staged rows>"


def _stage(
    cursor: psycopg.ClientCursor[Any],
    rows: Iterable[Row],
    bindings: BindingImport,
    progress: Callable[[str, int], None],
) -> Staged:
    for kind in KINDS:
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.sql))
            for column in kind.stored_columns
        ]
        flags = [sql.SQL("{} boolean").format(sql.Identifier(f"has_{name}")) for name in _secrets(kind)]
        cursor.execute(
            sql.SQL(
                "CREATE TEMP TABLE {} (file_no smallint, place integer, subject text, {}) ON COMMIT DROP"
            ).format(_staged(kind), sql.SQL(", ").join(columns + flags))
        )
    bindings.make_room()
    staged = Staged()
    total = 0
    iterator = iter(rows)
    row = next(iterator, None)
    while row is not None:  # one COPY for as long as the kind stays the same
        kind = row.kind
        names = [column.name for column in kind.stored_columns]
        secrets = _secrets(kind)
        with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(_staged(kind))) as copy:
            while row is not None and row.kind is kind:
                values = _staged_row(row, names, secrets)
                if kind is BINDINGS:
                    values += bindings.sealed(row.record)
                copy.write_row(values)
                if kind is CARDS and isinstance(pin := row.record["pin"], str):
                    staged.pins[row.file_no, row.number] = pin
                staged[kind.name] += 1
                total += 1
                if total % PROGRESS_ROWS == 0:
                    progress("reading", total)
                row = next(iterator, None)
    for kind in KINDS:
        cursor.execute(sql.SQL("ANALYZE {}").format(_staged(kind)))
    progress("reading", total)
    return staged


def _staged_row(row: Row, names: Sequence[str], secrets: Sequence[str]) -> list[Any]:
    record: Record = row.record
    values: list[Any] = [row.file_no, row.number, subject(row.kind, record)]
    values.extend([record[name] for name in names])
    values.extend([record[name] is not None for name in secrets])
    return values


def _secrets(kind: Kind) -> list[str]:
    return [column.name for column in kind.columns if column.secret]


def _staged(kind: Kind) -> sql.Identifier:
    return sql.Identifier(f"staged_{kind.name}")


def _stored(kind: Kind) -> sql.SQL:
    return sql.SQL(_SQL["known_cards" if kind is CARDS else f"stored_{kind.name}"])


Found = tuple[Kind, int, int, str, str]  # kind, file_no, place, field, rule


def _report(faults: Faults, sources: Sequence[Source], found: Iterable[Found]) -> None:
    for kind, file_no, place, field, rule in found:
        source = sources[file_no]
        faults.add(source.fault(source.place(kind, place), field, rule))


def _duplicates(cursor: psycopg.ClientCursor[Any], kind: Kind) -> list[Found]:
    cursor.execute(
        sql.SQL(
            "SELECT file_no, place FROM (SELECT file_no, place, row_number() OVER (PARTITION BY subject"
            " ORDER BY file_no, place) AS nth FROM {}) s WHERE nth > 1 ORDER BY file_no, place LIMIT {}"
        ).format(_staged(kind), FAULTS_MAX + 1)
    )
    return [(kind, file_no, place, kind.key[0], "is given twice") for file_no, place in cursor.fetchall()]


def _dangling(cursor: psycopg.ClientCursor[Any], kind: Kind, column: str, target: Kind) -> list[Found]:
    cursor.execute(
        sql.SQL(
            "SELECT s.file_no, s.place FROM {staged} s WHERE s.{column} IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM {target} t WHERE t.subject = s.{column})"
            " AND NOT EXISTS (SELECT FROM ({stored}) o WHERE o.subject = s.{column})"
            " ORDER BY s.file_no, s.place LIMIT {most}"
        ).format(
            staged=_staged(kind),
            column=sql.Identifier(column),
            target=_staged(target),
            stored=_stored(target),
            most=FAULTS_MAX + 1,
        )
    )
    rule = f"names no {target.singular}, neither in these files nor known"
    return [(kind, file_no, place, column, rule) for file_no, place in cursor.fetchall()]


def _compare(cursor: psycopg.ClientCursor[Any]) -> None:
    """Make differing_<kind> for every plain kind: what is new, and what is known and not the same."""
    for kind in PLAIN:
        names = [column.name for column in kind.columns]
        cursor.execute(
            sql.SQL(
                "CREATE TEMP TABLE {differing} ON COMMIT DROP AS"
                " SELECT new.*, old.subject IS NULL AS is_new, {before} AS before, {after} AS after"
                " FROM {staged} new LEFT JOIN ({stored}) old ON old.subject = new.subject"
                " WHERE old.subject IS NULL OR ({old}) IS DISTINCT FROM ({new})"
            ).format(
                differing=sql.Identifier(f"differing_{kind.name}"),
                before=sql.SQL("CASE WHEN old.subject IS NOT NULL THEN {} END").format(
                    _as_json("old", names)
                ),
                after=_as_json("new", names),
                staged=_staged(kind),
                stored=_stored(kind),
                old=sql.SQL(", ").join(sql.Identifier("old", name) for name in names),
                new=sql.SQL(", ").join(sql.Identifier("new", name) for name in names),
            )
        )


def _as_json(alias: str, names: Sequence[str]) -> sql.Composed:
    pairs = [sql.SQL("{}, {}").format(name, sql.Identifier(alias, name)) for name in names]
    return sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(pairs))


def _checks() -> Iterable[tuple[str, str]]:
    """Rules that look at several rows: kind to which the faulty rows belong, and the query for them."""
    yield "card_issuers", _SQL["check_bin_owner"].format(stored_card_issuers=_SQL["stored_card_issuers"])
    yield "terminals", _SQL["check_terminal_move"]
    yield "merchants", _SQL["check_acquirer_move"]
    yield "psams", _SQL["check_psam_terminal"]
    yield "terminals", _SQL["check_psam_stays"]
    overlap = _SQL["check_fee_overlap"].format(stored_fee_rules=_SQL["stored_fee_rules"])
    yield "fee_rules", overlap
    yield "fee_rules", _SQL["check_fee_closed_day"]


def _save(cursor: psycopg.ClientCursor[Any], actor: str, kind: Kind, read: int) -> Tally:
    """Write what differs, and who changed what."""
    differing = sql.Identifier(f"differing_{kind.name}")
    cursor.execute(
        sql.SQL("SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM {}").format(
            differing
        )
    )
    row = cursor.fetchone()
    assert row is not None
    tally = Tally(read, *row)
    if tally.unchanged == read:
        return tally
    cursor.execute(
        sql.SQL(
            "INSERT INTO registry_change (actor, subject, change)"
            " SELECT {}, {} || subject, jsonb_build_object('before', before, 'after', after) FROM {}"
        ).format(actor, f"{kind.singular} ", differing)
    )
    if kind.name == "fee_rules":
        cursor.execute(_SQL["change_fee_rules"])
    cursor.execute(_SQL[f"save_{kind.name}"])
    return tally
