"""What a rule may ask about an offline record: a closed set of figures, each an expression that PostgreSQL computes.

Nothing of a rule file ever becomes SQL: a rule names figures of this table and compares them with numbers, which travel as
parameters. An expression sees `r`, a row of risk_scope (risk.sql), and what the joins it needs have found. Where a figure cannot be
told it is NULL, and no comparison with it holds.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

LOOKBACK_DAYS: Final = 7  # business days before the records in question; no window is longer

_JOINS: Final = {
    # The accepted record before this one by the card's own counter, whenever it came.
    "before": """
  LEFT JOIN LATERAL (
       SELECT p.atc, p.balance_fen - p.amount_fen AS left_fen
         FROM purse_atc p
        WHERE r.ride AND p.card = r.card AND p.atc < r.atc
        ORDER BY p.atc DESC
        LIMIT 1) AS before ON true""",
    "shadow": """
  LEFT JOIN purse AS shadow ON r.ride AND shadow.shard = r.shard AND shadow.card_no = r.card_no""",
    "retired": """
  LEFT JOIN (
       SELECT card_key(c.pan) AS card, max(n.at) AT TIME ZONE 'Asia/Shanghai' AS at
         FROM card c
         JOIN registry_change n ON n.subject = 'card ' || c.card_no AND (n.change -> 'after' ->> 'state') IN ('6', '8')
        WHERE c.state IN (6, 8)
        GROUP BY c.pan) AS retired ON retired.card = r.card""",
    "listed": """
  LEFT JOIN (
       SELECT card_key(substr(e.asn, 2)) AS card, min(v.published_at) AT TIME ZONE 'Asia/Shanghai' AS at
         FROM hot_list_entry e
         JOIN hot_list_version v ON v.version = e.from_version
        WHERE e.until_version IS NULL
        GROUP BY e.asn) AS listed ON listed.card = r.card""",
}
_DAY: Final = "RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW"
_HOUR: Final = "RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW"
_OWN: Final = "PARTITION BY r.card, r.ride ORDER BY r.at"
_READER: Final = "PARTITION BY r.psam ORDER BY r.at"
_TERMINAL: Final = "PARTITION BY r.terminal_no ORDER BY r.at"
_PREVIOUS: Final = "(PARTITION BY r.card, r.ride ORDER BY r.at, r.atc)"


class Feature(NamedTuple):
    """A figure. unit and says: for people. join: what its expression needs beside r, empty for nothing."""

    name: str
    unit: str
    says: str
    sql: str
    join: str = ""


def _minutes_since_other(column: str) -> str:
    return (
        f"CASE WHEN r.ride AND lag(r.{column}) OVER {_PREVIOUS} <> r.{column}"
        f" THEN floor(extract(epoch FROM r.at - lag(r.at) OVER {_PREVIOUS}) / 60) END"
    )


_FEATURES: Final = (
    Feature(
        "result",
        "code",
        "result of the record; a grey one that is decided has its verdict",
        "r.result::integer",
    ),
    Feature("ride", "0, 1", "1: an accepted purchase, paid (results 10 and 00)", "r.ride::integer"),
    Feature("grey", "0, 1", "1: it came without a TAC, whatever became of it", "r.grey::integer"),
    Feature("amount_fen", "fen", "its amount", "r.amount_fen"),
    Feature("balance_fen", "fen", "the purse before it, as the card said", "r.balance_fen"),
    Feature(
        "over_fare_fen",
        "fen",
        "amount above the full fare that the same record states",
        "CASE WHEN r.full_fare_fen > 0 THEN r.amount_fen - r.full_fare_fen END",
    ),
    Feature("hour", "0 to 23", "hour of the day by the terminal's clock", "extract(hour FROM r.at)"),
    Feature(
        "age_days",
        "days",
        "whole days from the terminal's clock to the receipt; below zero when the clock is ahead",
        "floor(extract(epoch FROM r.received_local - r.happened_at) / 86400)",
    ),
    Feature(
        "card_rides_1h",
        "records",
        "accepted purchases of the card in the hour up to this one",
        f"CASE WHEN r.ride THEN count(*) OVER ({_OWN} {_HOUR}) END",
    ),
    Feature(
        "card_rides_24h",
        "records",
        "the same in 24 hours",
        f"CASE WHEN r.ride THEN count(*) OVER ({_OWN} {_DAY}) END",
    ),
    Feature(
        "card_spent_24h_fen",
        "fen",
        "what they come to",
        f"CASE WHEN r.ride THEN sum(r.amount_fen) OVER ({_OWN} {_DAY}) END",
    ),
    Feature(
        "minutes_since_other_reader",
        "minutes",
        "since the card's last accepted purchase, where that was at another reader (PSAM)",
        _minutes_since_other("psam"),
    ),
    Feature(
        "minutes_since_other_line",
        "minutes",
        "the same, where that was on another line",
        _minutes_since_other("line"),
    ),
    Feature(
        "minutes_since_other_merchant",
        "minutes",
        "the same, where that was at another merchant",
        _minutes_since_other("merchant_no"),
    ),
    Feature(
        "card_greys_7d",
        "records",
        "grey records of the card in seven days: a card torn away on purpose leaves them",
        "CASE WHEN r.card IS NOT NULL THEN count(*) FILTER (WHERE r.grey) OVER"
        " (PARTITION BY r.card ORDER BY r.at RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW) END",
    ),
    Feature(
        "card_tac_errors_24h",
        "records",
        "records of the card with a wrong TAC in 24 hours",
        "CASE WHEN r.card IS NOT NULL THEN count(*) FILTER (WHERE r.result = '01')"
        f" OVER (PARTITION BY r.card ORDER BY r.at {_DAY}) END",
    ),
    Feature(
        "atc_jump",
        "steps",
        "from the counter of the card's accepted record before to this one's; 1 is as it should be",
        "r.atc - before.atc",
        "before",
    ),
    Feature(
        "chain_fen",
        "fen",
        "balance less what the record before left, where the counters follow each other; a load makes it rise",
        "CASE WHEN before.atc = r.atc - 1 THEN r.balance_fen - before.left_fen END",
        "before",
    ),
    Feature(
        "shadow_balance_fen",
        "fen",
        "the card's shadow balance as it is now",
        "shadow.balance_fen",
        "shadow",
    ),
    Feature(
        "atc_collision",
        "0, 1",
        "1: refused because another ride used the card's counter (clone suspicion)",
        "(r.result = '02' AND EXISTS (SELECT FROM purse_alarm a"
        " WHERE a.kind = 'ATC_COLLISION' AND a.entry_no = r.entry_no))::integer",
    ),
    Feature(
        "serial_collision",
        "0, 1",
        "1: refused because another record used the PSAM's serial",
        "(r.result = '02' AND EXISTS (SELECT FROM purse_alarm a"
        " WHERE a.kind = 'PSAM_COLLISION' AND a.entry_no = r.entry_no))::integer",
    ),
    Feature(
        "retired_days",
        "days",
        "since the card was replaced or cancelled, where it is; below zero: ridden before",
        "floor(extract(epoch FROM r.at - retired.at) / 86400)",
        "retired",
    ),
    Feature(
        "listed_days",
        "days",
        "since the card was put on the hot list, where it is on it; below zero: ridden before",
        "floor(extract(epoch FROM r.at - listed.at) / 86400)",
        "listed",
    ),
    Feature(
        "reader_rides_1h",
        "records",
        "accepted purchases at the reader in the hour up to this one",
        f"CASE WHEN r.ride THEN count(*) FILTER (WHERE r.ride) OVER ({_READER} {_HOUR}) END",
    ),
    Feature(
        "reader_tac_errors_24h",
        "records",
        "records of the reader with a wrong TAC in 24 hours: a tampered reader",
        "CASE WHEN r.psam IS NOT NULL THEN count(*) FILTER (WHERE r.result = '01')"
        f" OVER ({_READER} {_DAY}) END",
    ),
    Feature(
        "reader_missing_24h",
        "serials",
        "serials of the PSAM that lie between those of 24 hours and have not come",
        "CASE WHEN r.serial_counts THEN max(r.psam_serial) FILTER (WHERE r.serial_counts) OVER"
        f" ({_READER} {_DAY}) - min(r.psam_serial) FILTER (WHERE r.serial_counts) OVER ({_READER} {_DAY})"
        f" + 1 - count(*) FILTER (WHERE r.serial_counts) OVER ({_READER} {_DAY}) END",
    ),
    Feature(
        "terminal_broken_24h",
        "records",
        "records of the terminal that could not be read (CRC, form), in 24 hours of receipt",
        f"count(*) FILTER (WHERE r.card IS NULL) OVER ({_TERMINAL} {_DAY})",
    ),
    Feature(
        "terminal_duplicates_24h",
        "records",
        "records that the terminal brought once more, in 24 hours",
        f"count(*) FILTER (WHERE r.result = '03') OVER ({_TERMINAL} {_DAY})",
    ),
)
FEATURES: Final = {feature.name: feature for feature in _FEATURES}
assert len(FEATURES) == len(_FEATURES), "each figure once"
assert all(not feature.join or feature.join in _JOINS for feature in _FEATURES)


_FEATURES_OF: Final = """SELECT r.entry_no, r.business_date, r.asked, r.card, r.psam, r.terminal_no,
       coalesce(r.amount_fen, 0) AS money_fen{columns}
  FROM risk_scope r{joins}"""


def feature_query(names: Collection[str]) -> str:
    """A SELECT of these figures of every record of risk_scope, each in a column of its name with f_ before it."""
    used = [feature for feature in _FEATURES if feature.name in names]
    assert len(used) == len(set(names)), "rules are checked before they are run"
    columns = "".join(f",\n       ({feature.sql})::bigint AS f_{feature.name}" for feature in used)
    joins = "".join(sql for name, sql in _JOINS.items() if any(feature.join == name for feature in used))
    return _FEATURES_OF.format(columns=columns, joins=joins)
