"""What a decided batch writes: accounts, holds, limit windows, journal, postings, uses of originals, splits."""

from datetime import date

from switch.ledger import hold_rows, limit_rows, load_rows, medical_rows
from switch.ledger.batch import Batch
from switch.storage.arrays import byteas, dates, int2s, int4s, int8s, texts
from switch.storage.pipeline import Parameter, Pipeline

STATEMENTS = ("write_accounts", "write_journal", "write_postings", "write_uses")
NO_DATE = date(2000, 1, 1)  # stands for NULL in the arrays, which hold none


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
                "account_ids": int8s([a.account_id for a in changed]),
                "balances": int8s([a.balance_fen for a in changed]),
                "failures": int2s([a.pin_failures for a in changed]),
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
        queue("write_journal", _journal_columns(shard, batch))
    if moved:
        queue(
            "write_postings",
            {
                "shard": shard,
                "business_date": batch.today,
                "entries": int8s([entry_no for entry_no, _, _ in moved]),
                "lines": int2s([line for _, line, _ in moved]),
                "debit_codes": int2s([m.debit[0] for _, _, m in moved]),
                "debit_owners": int8s([m.debit[1] for _, _, m in moved]),
                "credit_codes": int2s([m.credit[0] for _, _, m in moved]),
                "credit_owners": int8s([m.credit[1] for _, _, m in moved]),
                "amounts": int8s([m.amount_fen for _, _, m in moved]),
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


def _journal_columns(shard: int, batch: Batch) -> dict[str, Parameter]:
    items = [item for item, _, _ in batch.written]
    entries = [entry for _, entry, _ in batch.written]
    return {
        "shard": shard,
        "business_date": batch.today,
        "decided_at": batch.now,
        "terminals": int4s([item.key.terminal_no for item in items]),
        "batches": int4s([item.key.batch_no for item in items]),
        "stans": int4s([item.key.stan for item in items]),
        "classes": int2s([item.key.rclass for item in items]),
        "merchants": int4s([item.merchant_no for item in items]),
        "entry_modes": texts([getattr(item.request, "entry_mode", "") for item in items]),
        "digests": byteas([entry.digest for entry in entries]),
        "entries": int8s([entry.entry_no for entry in entries]),
        "kinds": int2s([entry.kind for entry in entries]),
        "accounts": int8s([entry.account_id or 0 for entry in entries]),
        "pans": texts([entry.pan or "" for entry in entries]),
        "amounts": int8s([entry.amount_fen for entry in entries]),
        "effects": int8s([entry.effect_fen for entry in entries]),
        "answers": texts([entry.answer for entry in entries]),
        "rrns": texts([entry.rrn for entry in entries]),
        "auth_codes": texts([entry.auth_code for entry in entries]),
        "original_dates": dates([entry.original_date or NO_DATE for entry in entries]),
        "original_entries": int8s([entry.original_entry or 0 for entry in entries]),
        "extras": byteas([entry.extra or b"" for entry in entries]),
    }
