"""What a decided batch writes: accounts, holds, limit windows, journal, postings, uses of originals, splits."""

from switch.ledger import hold_rows, limit_rows, load_rows, medical_rows
from switch.ledger.batch import Batch
from switch.storage.arrays import dates, day_number, int8s
from switch.storage.pipeline import Pipeline
from switch.storage.records import RecordKind, Records, bigint

STATEMENTS = ("write_accounts", "write_journal", "write_postings", "write_uses")
# The composite types of the same names (migration 0049).
_ACCOUNT_LINE = RecordKind("qqh")
_POSTING_LINE = RecordKind("qhhqhqq")
_JOURNAL_LINE = RecordKind("iiihqihqq", "QTttttyDQY")


def queue_writes(link: Pipeline, shard: int, batch: Batch) -> None:
    """Queue the statements that write a batch; whoever calls commits."""
    changed = [a for a in batch.accounts.values() if a.changed and not a.held_changed]
    held = [a for a in batch.accounts.values() if a.held_changed]
    used = [entry for entry in batch.by_number.values() if entry.used]
    moved = [
        (entry.entry_no, 0, ruling.movement)
        for _, entry, ruling in batch.written
        if ruling.movement is not None
    ]
    queue = link.queue
    if changed:
        queue(
            "write_accounts",
            {
                "shard": shard,
                "lines": _ACCOUNT_LINE.pack((a.account_id, a.balance_fen, a.pin_failures) for a in changed),
            },
        )
    if held:
        queue("write_held_accounts", hold_rows.held_columns(shard, held))
    if batch.facts.windows:
        windows = [window for window in batch.facts.windows.values() if window.changed]
        if windows:
            queue("write_windows", limit_rows.window_columns(shard, windows))
    if batch.holds:
        touched = [hold for hold in batch.holds.values() if hold.changed]
        if touched:
            queue("write_holds", hold_rows.hold_columns(shard, touched))
    if batch.facts.load_moves:
        moved += load_rows.movements(batch.facts.load_moves)
        load_rows.queue_writes(link, shard, batch)
    if batch.written:
        queue(
            "write_journal",
            {
                "shard": shard,
                "business_date": batch.today,
                "decided_at": batch.now,
                "lines": _journal_lines(batch),
            },
        )
    if moved:
        queue(
            "write_postings",
            {
                "shard": shard,
                "business_date": batch.today,
                "lines": _POSTING_LINE.pack(
                    (entry_no, line, *moves.debit, *moves.credit, moves.amount_fen)
                    for entry_no, line, moves in moved
                ),
            },
        )
    if batch.facts.medical is not None:
        medical_rows.queue_writes(link, shard, batch.today, batch.facts.medical, batch.written)
    if used:
        queue(
            "write_uses",
            {
                "shard": shard,
                "entries": int8s([entry.entry_no for entry in used]),
                "dates": dates([entry.business_date for entry in used]),
                "amounts": int8s([entry.amount_fen for entry in used]),
                "refunds": int8s([entry.refunded_fen for entry in used]),
                "undone": int8s([entry.undone_by or 0 for entry in used]),
            },
        )


def _journal_lines(batch: Batch) -> Records:
    return _JOURNAL_LINE.pack(
        (
            *item.key,
            entry.entry_no,
            item.merchant_no,
            entry.kind,
            entry.amount_fen,
            entry.effect_fen,
            bigint(entry.account_id or None),
            (entry.pan or "").encode(),
            entry.answer.encode(),
            entry.rrn.encode(),
            entry.auth_code.encode(),
            getattr(item.request, "entry_mode", "").encode(),
            entry.digest,
            b"" if entry.original_date is None else day_number(entry.original_date).to_bytes(4, "big"),
            bigint(entry.original_entry or None),
            entry.extra or b"",
        )
        for item, entry, _ in batch.written
    )
