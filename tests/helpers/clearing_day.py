"""A city with merchants, rules and one business day of journal rows, put into a database by plain SQL."""

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from psycopg import AsyncConnection

OWN = "99993350"
CENTRE = "99990000"
OTHER = "99993310"

PARTICIPANTS = """
INSERT INTO institution (institution_id, name, role) VALUES
    ('99993350', 'Own city', 'ISSUER'), ('99990000', 'Centre', 'CENTRE'), ('99993310', 'Second acquirer', 'ACQUIRER');
INSERT INTO card_issuer (issuer_id, institution_id, own) VALUES ('\\x99993350FFFFFFFF', '99993350', true);
INSERT INTO merchant (merchant_id, name, category, acquirer_id) VALUES
    ('993350054110001', 'Grocer', '5411', '99993350'),
    ('993350041110002', 'Buses', '4111', '99993350'),
    ('993310058120003', 'Noodles', '5812', '99993310'),
    ('993350080620004', 'Hospital', '8062', '99993350');
INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm) VALUES
    ('33500001', 1, 1), ('33500002', 2, 5), ('33100003', 3, 1), ('33500004', 4, 5);
INSERT INTO psam (psam_no, merchant_no, terminal_no) VALUES ('335000000017', 1, 1), ('335000000025', 2, 2);
INSERT INTO fee_rule (merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen, valid_from) VALUES
    (NULL, NULL, 10, 3800, 0, NULL, '2020-01-01'),
    (NULL, '5812', 10, 5000, 1, 2600, '2020-01-01'),
    (1, NULL, 10, 6000, 0, NULL, '2020-01-01'),
    (NULL, NULL, 50, 6000, 0, NULL, '2020-01-01');
"""

# Deterministic noise: purchases, every 11th followed by a void of itself, every 17th by a refund of a part, some medical.
JOURNAL = """
WITH purchase AS (
    SELECT n, 1 + n %% 4 AS merchant_no, n %% 2 AS shard, %(first)s + n AS entry_no,
           CASE WHEN n %% 4 = 3 THEN 40 ELSE 10 END AS kind, 1 + n::bigint * 7919 %% 30011 AS amount_fen,
           (SELECT begins_at FROM business_day WHERE business_date = %(day)s) + n * interval '1 millisecond' AS at
      FROM generate_series(1, %(count)s) AS n
), item AS (
    SELECT n, merchant_no, shard, entry_no, kind, amount_fen, amount_fen AS effect_fen, at, 1 AS what, NULL::bigint AS original
      FROM purchase
    UNION ALL
    SELECT n, merchant_no, shard, entry_no + 100000000, kind, amount_fen, -amount_fen, at + interval '1 second', 3, entry_no
      FROM purchase WHERE n %% 11 = 0
    UNION ALL
    SELECT n, merchant_no, shard, entry_no + 200000000, kind, 1 + amount_fen / 3, -(1 + amount_fen / 3),
           at + interval '2 seconds', 4, entry_no
      FROM purchase WHERE n %% 17 = 0 AND n %% 11 <> 0
), booked AS (
    INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, account_id, pan,
                         amount_fen, effect_fen, answer, rrn, auth_code, entry_mode, decided_at, digest, original_date,
                         original_entry)
    SELECT shard, %(day)s, merchant_no, 1 + n / 300000, 1 + (n %% 300000) * 3 + CASE what WHEN 1 THEN 0 ELSE what - 2 END, 0,
           entry_no, merchant_no, what, (1000 + n %% 50) * 100 + kind,
           '31335001' || lpad((n %% 50)::text, 11, '0'), abs(effect_fen), effect_fen, '00',
           lpad(entry_no::text, 12, '0'), CASE what WHEN 1 THEN 'A00001' ELSE '' END, '051', at,
           decode(repeat('00', 32), 'hex'), CASE WHEN original IS NOT NULL THEN %(day)s::date END, original
      FROM item
    RETURNING shard, entry_no, merchant_no, account_id, effect_fen
)
INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT shard, %(day)s, entry_no,
       CASE WHEN effect_fen > 0 THEN 2001 ELSE 2101 END, CASE WHEN effect_fen > 0 THEN account_id ELSE merchant_no END,
       CASE WHEN effect_fen > 0 THEN 2101 ELSE 2001 END, CASE WHEN effect_fen > 0 THEN merchant_no ELSE account_id END,
       abs(effect_fen)
  FROM booked
"""


async def add_participants(connection: AsyncConnection[Any]) -> None:
    """Institutions, four merchants with a terminal each, and fee rules."""
    await connection.execute(PARTICIPANTS)


async def add_journal(connection: AsyncConnection[Any], day: date, count: int, first: int = 10_000) -> None:
    """`count` purchases of a day, with voids and refunds, and their postings."""
    async with connection.transaction():
        await connection.execute(JOURNAL, {"day": day, "count": count, "first": first})


class Fare(NamedTuple):
    """What a record says of a ride: bytes 74 to 77, 79, 80 to 81 and 94."""

    full_fen: int
    line: str = "0001"
    transfer: bool = False
    industry: int = 1

    def onto(self, raw: bytes) -> bytes:
        """The record with it."""
        ride = self.full_fen.to_bytes(4) + bytes((0, self.industry)) + bytes.fromhex(self.line)
        return raw[:73] + ride + raw[81:93] + bytes((2 * self.transfer,)) + raw[94:]


def record_96(
    card: int,
    atc: int,
    amount_fen: int,
    serial: int,
    *,
    balance_fen: int = 5000,
    tac: str = "0A0B0C0D",
    kind: int = 0,
) -> bytes:
    """An offline record of the terminal with PSAM 335000000017; its checksum is not looked at here."""
    return b"".join(
        (
            bytes([1, kind, 6, 0, 1, 1]),
            bytes.fromhex(f"0313350010000{card:07d}"),
            bytes.fromhex("99993350FFFFFFFF33500101"),
            atc.to_bytes(2, "big"),
            amount_fen.to_bytes(4, "big"),
            balance_fen.to_bytes(4, "big"),
            bytes.fromhex("20240315081530335000000017"),
            serial.to_bytes(4, "big"),
            bytes.fromhex(tac),
            serial.to_bytes(4, "big"),
            bytes.fromhex("99993350FFFFFFFF3350"),
            bytes(23),
        )
    )


async def add_records(
    connection: AsyncConnection[Any],
    day: date,
    first_entry: int,
    merchant_no: int,
    results: list[tuple[str, int]],
    *,
    fares: Sequence[Fare] = (),
) -> None:
    """Offline records of a day with their results and amounts, in order of arrival. fares: they are rides, each with its own."""
    for place, (result, amount_fen) in enumerate(results):
        raw = record_96(
            place + 1, place, amount_fen, 1000 + place, tac="FFFFFFFF" if result == "04" else "0A0B0C0D"
        )
        if fares:
            raw = fares[place].onto(raw)
        accepted = result == "10"
        await connection.execute(
            "INSERT INTO purse_record (entry_no, card_no, card, amount_fen, balance_fen, psam, psam_serial, record_serial, credit_owner,"
            " happened_at, received_at, business_date, terminal_no, merchant_no, batch_no, atc, shard, credit_code, record_kind,"
            " result, raw) SELECT %s, %s, card_key(%s), %s, 5000, 335000000017, %s, %s, %s, '2024-03-15 08:15:30',"
            " d.begins_at + %s * interval '1 second', %s, %s, %s, 7, %s, 0, %s, 0, %s, %s FROM business_day d"
            " WHERE d.business_date = %s",
            (
                first_entry + place,
                place + 1 if accepted else None,
                raw[6:16].hex()[1:],
                amount_fen,
                1000 + place,
                1000 + place,
                merchant_no if accepted else None,
                place,
                day,
                merchant_no,
                merchant_no,
                place,
                2101 if accepted else None,
                result,
                raw,
                day,
            ),
        )


async def adjudicate(
    connection: AsyncConnection[Any], day: date, entry_no: int, original: tuple[int, date], result: str
) -> None:
    """Decide a grey record (04) on a day: a row of that day with 00 or 94."""
    await connection.execute(
        "INSERT INTO purse_record (entry_no, card_no, card, amount_fen, balance_fen, psam, psam_serial, record_serial, credit_owner,"
        " happened_at, received_at, business_date, terminal_no, merchant_no, batch_no, atc, shard, credit_code, record_kind, result,"
        " raw, original_entry, original_date)"
        " SELECT %s, 77, o.card, o.amount_fen, o.balance_fen, o.psam, o.psam_serial, o.record_serial, o.merchant_no, o.happened_at,"
        " d.begins_at + interval '1 minute', %s, o.terminal_no, o.merchant_no, o.batch_no, o.atc, 0, 2101, o.record_kind, %s, o.raw,"
        " o.entry_no, o.business_date FROM purse_record o, business_day d"
        " WHERE o.entry_no = %s AND o.business_date = %s AND d.business_date = %s",
        (entry_no, day, result, *original, day),
    )
