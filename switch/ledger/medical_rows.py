"""Medical payments between the tables and the running state of a batch. Only batches with a request about a medical account come here."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from switch.domain.transactions import AccountKind, Purchase
from switch.ledger.items import Item
from switch.ledger.medical import CoverWindow, MedicalPolicy, MedicalState, PolicyRule
from switch.ledger.rules import Entry, Ruling
from switch.storage.arrays import dates, int2s, int4s, int8s
from switch.storage.pipeline import Pipeline
from switch.storage.sql import load

SQL: Final = dict(load("switch.ledger", "medical.sql"))
KIND: Final = int(AccountKind.MEDICAL)
_ONLINE: Final = int(AccountKind.ONLINE)
Row = tuple[Any, ...]


def accounts_beside(items: Sequence[Item]) -> set[int]:
    """The online accounts of the holders: whether they pay a share is known only under the lock, so it is taken from the start."""
    return {item.holder_id * 100 + _ONLINE for item in items if item.holder_id}


def queue_reads(link: Pipeline, shard: int, items: Sequence[Item]) -> None:
    """Queue what the policy needs beside the accounts: two results, for state_of."""
    merchants = {item.merchant_no for item in items if isinstance(item.request, Purchase)}
    accounts = {item.holder_id * 100 + KIND for item in items}
    link.queue("read_medical_rules", {"merchants": int4s(list(merchants))})
    link.queue("read_medical_windows", {"shard": shard, "accounts": int8s(list(accounts))})


def state_of(policy: MedicalPolicy, rules: Sequence[Row], windows: Sequence[Row]) -> MedicalState:
    """The state from what was read."""
    state = MedicalState(policy)
    by_merchant: dict[int, list[PolicyRule]] = {}
    for merchant_no, begins, policy_no, *terms in rules:
        state.begins = begins
        if policy_no is not None:
            by_merchant.setdefault(merchant_no, []).append(PolicyRule(policy_no, *terms))
    state.rules = by_merchant
    state.windows = {row[0]: CoverWindow(*row) for row in windows}
    return state


def queue_writes(
    link: Pipeline,
    shard: int,
    today: date,
    state: MedicalState,
    written: Sequence[tuple[Item, Entry, Ruling]],
) -> None:
    """Queue splits, windows and second postings of a decided batch."""
    windows = [window for window in state.windows.values() if window.changed]
    if windows:
        link.queue(
            "write_medical_windows",
            {
                "shard": shard,
                "accounts": int8s([window.account_id for window in windows]),
                "days": dates([window.day for window in windows]),
                "day_fens": int8s([window.day_fen for window in windows]),
                "year_fens": int8s([window.year_fen for window in windows]),
            },
        )
    if state.made:
        link.queue(
            "write_splits",
            {
                "shard": shard,
                "business_date": today,
                "entries": int8s([split.entry_no for split in state.made]),
                "accounts": int8s([split.account_id for split in state.made]),
                "policies": int4s([split.policy_no for split in state.made]),
                "covered": int8s([split.covered_fen for split in state.made]),
                "own": int8s([split.own_fen for split in state.made]),
            },
        )
    further = [(entry, ruling.further) for _, entry, ruling in written if ruling.further is not None]
    if further:
        link.queue(
            "write_second_postings",
            {
                "shard": shard,
                "business_date": today,
                "entries": int8s([entry.entry_no for entry, _ in further]),
                "debit_codes": int2s([move.debit[0] for _, move in further]),
                "debit_owners": int8s([move.debit[1] for _, move in further]),
                "credit_codes": int2s([move.credit[0] for _, move in further]),
                "credit_owners": int8s([move.credit[1] for _, move in further]),
                "amounts": int8s([move.amount_fen for _, move in further]),
            },
        )
