"""What the tests of the audit change, one at a time: money, states and keys of every table that holds any."""

from typing import NamedTuple

# How the audit names a row: a part of its key, as SQL over the row.
KEYS = {
    "account": "'account ' || account_id",
    "business_day": "business_date::text",
    "card": "'card_no ' || card_no",
    "card_route": "'card_no ' || card_no",
    "holder": "'holder ' || holder_id",
    "journal": "'entry ' || entry_no",
    "posting": "'entry ' || entry_no",
    "original_use": "'entry ' || entry_no",
    "hold": "'entry ' || entry_no",
    "purse_load": "'entry ' || entry_no",
    "purse_load_move": "'entry ' || entry_no",
    "limit_rule": "'limit ' || rule_no",
    "limit_window": "'account ' || account_id",
    "medical_policy": "'medical policy ' || policy_no",
    "medical_window": "'account ' || account_id",
    "purchase_split": "'entry ' || entry_no",
    "folded_balance": "format('%s/%s in shard %s', code, owner, shard)",
    "fold_watermark": "'shard ' || shard",
    "purse": "'card_no ' || card_no",
    "purse_record": "'entry ' || entry_no",
    "purse_atc": "'entry ' || entry_no",
    "purse_serial": "'serial ' || psam_serial",
    "purse_waiting": "'entry ' || entry_no",
    "purse_quarantine": "'entry ' || entry_no",
    "purse_stray": "'card_no ' || card_no",
    "purse_alarm": "'alarm_no ' || alarm_no",
    "purse_sequence": "'kind ' || kind",
    "purse_gap": "'gap_no ' || gap_no",
    "purse_alarm_note": "'note_no ' || note_no",
    "purse_watermark": "'the one'",
    "trip_watermark": "'the one'",
    "transaction_numbers": "'the one'",
    "registry_change": "'change_no ' || change_no",
    "terminal_batch": "format('terminal_no %s, batch %s', terminal_no, batch_no)",
    "terminal_batch_detail": "'entry ' || entry_no",
    "terminal_batch_difference": "'line ' || line",
    "host_leg": "'leg ' || leg_no",
    "host_outbox": "'message ' || outbox_no",
    "stand_in": "format('host %s in shard %s', host, shard)",
    "clearing_day": "business_date::text",
    "clearing_step": "step || ' of ' || business_date",
    "clearing_merchant": "format('merchant_no %s on %s', merchant_no, business_date)",
    "clearing_rule": "format('merchant_no %s, kind %s', merchant_no, account_kind)",
    "clearing_original": "'entry ' || entry_no",
    "clearing_leg": "'entry ' || entry_no",
    "clearing_source_line": "'entry ' || entry_no",
    "clearing_summary": "format('merchant_no %s, kind %s', merchant_no, account_kind)",
    "clearing_offline": "format('merchant_no %s on %s', merchant_no, business_date)",
    "clearing_position": "format('%s on %s', institution_id, business_date)",
    "clearing_float": "format('%s on %s', code, business_date)",
    "clearing_file": "name",
    "clearing_seal": "business_date::text",
    "clearing_seal_block": "format('block %s of %s', block_no, business_date)",
    "clearing_movement": "format('%s to %s, %s, on %s', debit_code, credit_code, source, business_date)",
    "clearing_suspense": "format('load %s on %s', load_no, business_date)",
    "clearing_alarm": "'alarm_no ' || alarm_no",
    "clearing_report": "format('%s of %s', report, business_date)",
    "fee_rule": "'fee_rule ' || rule_no",
    "file_signature": "name",
    "clearing_resend": "name",
    "clearing_hot_list": "format('%s on %s', acquirer_id, business_date)",
    "delivery": "format('%s no. %s', partner, number)",
    "delivery_day": "format('%s on %s', partner, business_date)",
    "delivery_receipt": "file",
    "delivery_inbox": "format('%s of %s', name, partner)",
    "received_file": "'file_no ' || file_no",
    "received_chunk": "'file_no ' || file_no",
    "foreign_verdict": "'entry ' || entry_no",
    "booking": "'entry ' || entry_no",
    "subsidy_rule": "'subsidy_rule ' || rule_no",
    "clearing_subsidy": "format('rule %s, merchant_no %s, on %s', rule_no, merchant_no, business_date)",
    "fee_proposal": "format('proposal %s, line 1', proposal_no)",
    "fee_proposal_rule": "format('proposal %s, line %s', proposal_no, line)",
    "foreign_hold": "'entry ' || original_entry",
    "clearing_interop": "format('%s on %s', institution_id, business_date)",
    "interop_tariff": "valid_from::text",
    "interop_day": "clearing_date::text",
    "interop_arrival": "'file_no ' || file_no",
    "interop_record": "format('file_no %s, line %s', file_no, line)",
    "interop_verdict": "format('file_no %s, line %s', file_no, line)",
    "interop_hold": "format('file_no %s, line %s', file_no, line)",
    "interop_position": "format('%s on %s', institution_id, clearing_date)",
    "interop_file": "name",
    "dispute_case": "'case ' || case_no",
    "dispute_event": "format('case %s, step %s', case_no, seq)",
    "dispute_evidence": "format('case %s, step %s', case_no, seq)",
    "dispute_received": "format('file_no %s, line %s', file_no, line_no)",
    "clearing_dispute": "format('line %s for %s on %s', line_no, member_id, business_date)",
    "clearing_adjusted": "'entry ' || entry_no",
    "trip_leg": "'entry ' || entry_no",
    "clearing_transit": "format('merchant_no %s, line %s, on %s', merchant_no, line, business_date)",
}


class Change(NamedTuple):
    """table.column = value where; value and where are SQL. named: the table that is named instead, where two tables say the same."""

    table: str
    column: str
    value: str
    where: str = "true"
    named: str = ""

    def __str__(self) -> str:
        return f"{self.table}.{self.column} = {self.value} where {self.where}".replace(" where true", "")


def plus(table: str, columns: str, where: str = "true") -> list[Change]:
    """Each of these columns one more."""
    return [Change(table, column, f"{column} + 1", where) for column in columns.split()]


CHANGES = [
    # holders
    *plus("account", "balance_fen account_id holder_id kind"),
    Change("account", "balance_fen", "balance_fen - 1"),
    Change("account", "pin_failures", "7"),
    Change("account", "shard", "1 - shard"),
    *plus("card_route", "shard holder_id"),
    Change("card", "shard", "1 - shard", named="card_route"),
    Change("card", "holder_id", "holder_id + 1", named="card_route"),
    Change("card", "card_no", "card_no + 1000", named="card_route"),
    Change("card", "state", "4"),
    Change("card", "state", "1", "state = 2"),
    Change("card", "lost_at", "lost_at + interval '1 millisecond'", "state = 2"),
    Change("card", "loss_lapses_at", "NULL", "state = 2"),
    Change("holder", "shard", "1 - shard"),
    Change(
        "registry_change",
        "change",
        "jsonb_set(change, '{after,online_opening_fen}', '50001')",
        "subject = 'card 3'",
    ),
    Change(
        "registry_change",
        "change",
        "jsonb_set(change, '{after,purse_opening_fen}', '1')",
        "subject = 'card 3'",
    ),
    # journal
    *[
        change
        for what in (
            "kind = 1 AND answer = '00'",
            "kind = 3 AND answer = '00'",
            "kind = 4",
            "kind = 5 AND answer = '00'",
            "kind = 20",
        )
        for change in plus("journal", "amount_fen", what)
    ],
    *plus("journal", "amount_fen", "kind = 2"),
    *plus("journal", "amount_fen", "kind = 21"),
    *plus("journal", "effect_fen", "kind = 1 AND answer = '00'"),
    *plus("journal", "effect_fen", "kind = 4"),
    *plus("journal", "effect_fen", "kind = 2"),
    Change("journal", "effect_fen", "-effect_fen", "kind = 1 AND answer = '00'"),
    Change("journal", "effect_fen", "0", "kind = 5 AND answer = '00'"),
    Change("journal", "answer", "'51'", "kind = 1 AND answer = '00'"),
    Change("journal", "answer", "'00'", "answer = '51'"),
    Change("journal", "answer", "'00'", "answer = '22'"),
    Change("journal", "kind", "3", "kind = 4"),
    Change("journal", "kind", "99", "kind = 4"),
    Change("journal", "class", "1", "kind = 1"),
    Change("journal", "entry_no", "entry_no + 500000", "kind = 1 AND answer = '00'"),
    Change("journal", "entry_no", "(SELECT max(entry_no) FROM purse_record)", "kind = 2"),
    Change("journal", "merchant_no", "2", "merchant_no = 1 AND effect_fen <> 0", named="posting"),
    Change("journal", "account_id", "account_id + 100", "effect_fen > 0"),
    Change("journal", "account_id", "account_id + 100", "effect_fen = 0 AND kind = 1"),
    Change("journal", "terminal_no", "99", "kind = 1"),
    Change("journal", "decided_at", "decided_at - interval '2 days'", "kind = 1"),
    Change("journal", "decided_at", "decided_at + interval '1 day'", "kind = 1"),
    Change("journal", "rrn", "overlay(rrn PLACING '!' FROM 12)", "kind = 1"),
    Change(
        "journal",
        "rrn",
        "overlay(rrn PLACING CASE substr(rrn, 1, 1) WHEN '1' THEN '2' ELSE '1' END FROM 1)",
        "kind = 2",
    ),
    Change("journal", "rrn", "overlay(rrn PLACING 'Z' FROM 12)", "kind = 5 AND answer = '00'"),
    Change("journal", "auth_code", "'ABCDEF'", "kind = 1 AND answer = '00'"),
    Change("journal", "auth_code", "'ABCDEF'", "kind = 3 AND answer = '00'"),
    Change("journal", "digest", "substr(digest, 2)"),
    Change("journal", "extra", "convert_to('{\"54\": [[10, 1, 1], [10, 2, 2]]}', 'UTF8')", "kind = 2"),
    Change(
        "journal",
        "extra",
        "convert_to(replace(convert_from(extra, 'UTF8'), '3130', '3131'), 'UTF8')",
        "kind = 20",
    ),
    Change("journal", "original_entry", "original_entry + 1", "kind = 4"),
    Change("journal", "original_entry", "NULL", "kind = 4"),
    Change("journal", "original_date", "original_date + 1", "kind = 3 AND answer = '00'"),
    # postings
    *plus("posting", "amount_fen", "debit_code = 2001"),
    *plus("posting", "amount_fen", "credit_code = 2001 AND debit_code = 2101"),
    *plus("posting", "amount_fen", "credit_code = 6001"),
    *plus("posting", "amount_fen", "credit_code = 2102"),
    *plus("posting", "amount_fen", "debit_code = 2003"),
    *plus("posting", "debit_owner credit_owner debit_code credit_code line", "debit_code = 2001"),
    *plus("posting", "credit_owner", "debit_code = 2101 AND credit_code = 2001"),
    *plus("posting", "debit_owner", "credit_code = 6001"),
    *plus("posting", "debit_owner", "debit_code = 1001"),
    Change("posting", "entry_no", "entry_no + 700000", "debit_code = 2001"),
    Change("posting", "shard", "1 - shard", "debit_code = 2001"),
    Change("posting", "debit_code", "6001", "debit_code = 1001 AND credit_code = 2001"),  # interest
    Change("posting", "credit_code", "1001", "debit_code = 2001"),  # cash
    Change(
        "posting", "amount_fen", "amount_fen + 1", "debit_code = 1001 AND credit_code = 2001", named="account"
    ),
    Change(
        "posting", "amount_fen", "amount_fen + 1", "debit_code = 1001 AND credit_code = 2002", named="purse"
    ),
    Change(
        "posting",
        "txid",
        "1000000000000",
        "debit_code = 2001 AND business_date = (SELECT min(business_date) FROM business_day)",
        named="folded_balance",
    ),
    # pre-authorisations
    *plus("hold", "amount_fen account_id business_date"),
    Change("hold", "entry_no", "entry_no + 500000"),
    *plus("hold", "frozen_fen", "ended_by IS NOT NULL"),
    Change("hold", "frozen_fen", "frozen_fen - 1", "ended_by IS NULL", named="account"),
    Change("hold", "ended_by", "0", "ended_by IS NULL"),
    Change("hold", "ended_by", "NULL", "ended_by IS NOT NULL"),
    *plus("hold", "ended_by", "ended_by IS NOT NULL"),
    *plus("hold", "completed_by", "completed_by IS NOT NULL"),
    Change("hold", "expires_at", "expires_at + interval '1 second'"),
    Change("hold", "shard", "1 - shard"),
    *plus("account", "held_fen"),
    Change("account", "held_fen", "held_fen - 1", "held_fen > 0"),
    Change("account", "holds_due", "holds_due + interval '1 second'", "held_fen > 0"),
    Change("journal", "amount_fen", "amount_fen + 1", "kind = 6 AND answer = '00'", named="hold"),
    *plus("journal", "amount_fen", "kind = 8 AND answer = '00'"),
    Change("journal", "auth_code", "'ABCDEF'", "kind = 6 AND answer = '00'"),
    Change("journal", "auth_code", "'ABCDEF'", "kind = 8 AND answer = '00'"),
    Change("journal", "original_entry", "original_entry + 1", "kind = 9"),
    Change("journal", "kind", "1", "kind = 10"),
    # loads
    *plus("purse_load", "amount_fen card_no debit_owner"),
    Change("purse_load", "online_atc", "online_atc + 1", "state = 2", named="purse"),
    Change("purse_load", "balance_before_fen", "99999999"),
    Change("purse_load", "debit_code", "1101", "source = 4"),
    Change("purse_load", "state", "2", "state = 4"),
    Change("purse_load", "state", "4", "state = 2"),
    Change("purse_load", "held", "0", "state = 4 AND held = 2"),
    Change("purse_load", "reason", "'operator'", "reason = 'confirm'"),
    Change("purse_load", "business_date", "business_date + 1"),
    Change("purse_load", "authorised_at", "authorised_at + interval '1 second'"),
    Change("purse_load", "shard", "1 - shard"),
    Change("purse_load", "entry_no", "entry_no + 500000"),
    Change("purse_load_move", "to_state", "2", "to_state = 5"),
    Change("purse_load_move", "from_state", "4", "from_state = 0"),
    Change("purse_load_move", "reason", "'confirm'", "reason = 'card_ahead'"),
    Change("purse_load_move", "reason", "'whatever'", "reason = 'reversal'"),
    Change("purse_load_move", "note", "''", "reason = 'operator'"),
    Change("purse_load_move", "at", "at + interval '1 second'", "reason = 'request'"),
    Change("purse_load_move", "load_no", "load_no + 500000"),
    *plus("posting", "amount_fen", "credit_code = 2002 AND debit_code = 1002"),
    *plus("posting", "amount_fen", "credit_code = 2201 AND debit_code = 2002"),
    *plus("posting", "amount_fen", "credit_code = 2001 AND debit_code = 1002"),
    *plus("posting", "debit_owner", "debit_code = 1002"),
    Change("posting", "credit_code", "2002", "credit_code = 2201 AND debit_code = 2002"),
    Change("journal", "amount_fen", "amount_fen + 1", "kind = 11 AND answer = '00'", named="posting"),
    *plus("journal", "amount_fen", "kind = 12"),
    Change("journal", "answer", "'51'", "kind = 11 AND answer = '00'", named="purse_load"),
    Change("journal", "original_entry", "NULL", "kind = 12"),
    *plus("purse", "online_atc", "card_no = 1"),
    # limits
    *plus("limit_window", "day_fen day_count month_fen month_count"),
    Change("limit_window", "day", "day - 1"),
    Change("limit_rule", "transaction_fen", "1"),
    Change("limit_rule", "month_fen", "1"),
    *plus("limit_rule", "day_fen day_count valid_from"),
    Change("limit_window", "account_id", "account_id + 100000"),
    Change("account", "limited_from", "NULL", "limited_from IS NOT NULL"),
    Change(
        "account", "limited_from", "limited_from - 1", "kind = 10 AND holder_id = 1", named="limit_window"
    ),
    # the medical policy
    *plus("purchase_split", "medical_fen own_fen account_id business_date"),
    *plus("purchase_split", "policy_no", "medical_fen > 9"),
    Change("purchase_split", "medical_fen", "medical_fen - 1", "own_fen = 0"),
    Change("purchase_split", "own_fen", "0", "own_fen > 0"),
    Change("purchase_split", "entry_no", "entry_no + 500000"),
    Change("purchase_split", "shard", "1 - shard"),
    *plus("medical_window", "day_fen year_fen"),
    Change("medical_window", "day", "day - 1"),
    Change("medical_window", "account_id", "account_id + 100000"),
    *plus("medical_policy", "own_pay_ppm valid_from day_fen year_fen", "category = '4111'"),
    Change("medical_policy", "transaction_fen", "1"),
    Change("medical_policy", "splits", "NOT splits"),
    Change("medical_policy", "category", "'0742'"),
    *plus("posting", "amount_fen debit_owner", "line = 1 AND debit_code = 2001"),
    *plus("posting", "amount_fen credit_owner", "line = 1 AND debit_code = 2101"),
    Change("posting", "line", "2", "line = 1"),
    # what is derived from them
    *plus("original_use", "amount_fen"),
    *plus("original_use", "refunded_fen", "refunded_fen > 0"),
    *plus("original_use", "undone_by", "undone_by IS NOT NULL"),
    Change("original_use", "undone_by", "entry_no", "undone_by IS NULL"),
    Change("original_use", "business_date", "business_date + 1"),
    *plus("folded_balance", "debit_fen credit_fen", "code = 2101"),
    *plus("folded_balance", "debit_fen", "code = 1001"),
    *plus("folded_balance", "credit_fen", "code = 6001"),
    *plus("folded_balance", "credit_fen debit_fen", "code = 2002"),
    Change("fold_watermark", "folded_to", "folded_to + 1000000000000"),
    Change("fold_watermark", "folded_to", "0", named="folded_balance"),
    Change("purse_watermark", "folded_to", "folded_to + 1000000000000"),
    Change("purse_watermark", "folded_to", "0", named="purse"),
    Change("transaction_numbers", "ahead", "ahead + 1"),
    Change("transaction_numbers", "cluster_id", "cluster_id + 1"),
    # purses
    *plus("purse", "loaded_fen spent_fen"),
    *plus("purse", "next_atc", "card_no = 2"),
    Change("purse", "online_atc", "70000"),
    Change("purse", "asn", "'0' || repeat('9', 19)"),
    Change("purse", "shard", "1 - shard"),
    *plus(
        "purse_record",
        "amount_fen balance_fen atc psam_serial record_serial psam card",
        "result = '10' AND record_kind = 0",
    ),
    *plus("purse_record", "amount_fen", "result = '04'"),
    *plus("purse_record", "amount_fen", "result = '00'"),
    *plus("purse_record", "card_no", "result = '10'"),
    *plus("purse_record", "credit_owner", "credit_code = 2101"),
    *plus("purse_record", "credit_owner", "credit_code = 2102"),
    Change("purse_record", "credit_code", "2001", "result = '10' AND credit_code = 2101"),
    Change("purse_record", "result", "'01'", "result = '10' AND record_kind = 0", named="purse_atc"),
    Change("purse_record", "result", "'10'", "result = '01'", named="purse_atc"),
    Change("purse_record", "result", "'94'", "result = '00'"),
    Change("purse_record", "result", "'XX'", "result = '03'"),
    Change("purse_record", "shard", "1 - shard", "result = '10'"),
    Change("purse_record", "happened_at", "happened_at + interval '1 second'", "result = '10'"),
    Change("purse_record", "received_at", "received_at + interval '1 day'", "result = '10'"),
    Change("purse_record", "raw", "set_byte(raw, 33, get_byte(raw, 33) # 1)", "result = '10'"),
    Change(
        "purse_record",
        "raw",
        "set_byte(raw, 56, get_byte(raw, 56) # 1)",
        "result = '10' AND record_kind = 0",
        named="purse_atc",
    ),
    Change("purse_record", "original_entry", "original_entry + 1", "result = '00'"),
    Change("purse_record", "merchant_no", "2", "result = '10' AND merchant_no = 1"),
    Change("purse_record", "terminal_no", "2", "result = '10' AND merchant_no = 1"),
    *plus("purse_atc", "amount_fen balance_fen entry_no"),
    Change("purse_atc", "atc", "atc + 50"),
    Change("purse_atc", "mark", "set_byte(mark, 20, get_byte(mark, 20) # 1)"),
    Change("purse_atc", "business_date", "business_date + 1"),
    Change("purse_serial", "atc", "atc + 1"),
    Change("purse_serial", "card", "card + 1"),
    Change("purse_serial", "psam_serial", "psam_serial + 70000"),
    *plus("purse_waiting", "amount_fen balance_fen atc entry_no card"),
    Change("purse_waiting", "verdict", "'94'", "verdict = '00'"),
    Change("purse_waiting", "verdict", "'00'", "verdict IS NULL"),
    Change("purse_waiting", "decided_on", "decided_on + 1", "verdict = '00'"),
    Change("purse_waiting", "result", "'04'", "result = '11'"),
    Change("purse_quarantine", "raw", "set_byte(raw, 3, get_byte(raw, 3) # 1)"),
    Change("purse_quarantine", "terminal_no", "terminal_no + 1"),
    Change("purse_stray", "card_no", "card_no + 100", named="purse_record"),
    Change("purse_alarm", "entry_no", "entry_no + 800000"),
    Change(
        "purse_alarm", "gap_no", "(SELECT gap_no FROM purse_gap WHERE kind = 3 LIMIT 1)", "gap_no IS NOT NULL"
    ),
    Change("purse_alarm", "at", "at + interval '1 second'", "gap_no IS NOT NULL"),
    Change("purse_alarm", "kind", "'CHAIN_BREAK'", "gap_no IS NOT NULL"),
    Change("purse_alarm_note", "acknowledged", "NOT acknowledged"),
    Change("purse_alarm_note", "alarm_no", "alarm_no + 800000"),
    Change("purse_alarm_note", "at", "at - interval '100 days'"),
    Change("purse_alarm_note", "actor", "''"),
    Change("purse_alarm_note", "reason", "''"),
    *plus("purse_sequence", "first_no next_no"),
    *plus("purse_sequence", "first_no", "kind = 3"),
    Change("purse_sequence", "missing", "'{}'", "missing <> '{}' AND kind <> 1"),
    Change("purse_sequence", "missing", "missing + '{[0,1)}'", "kind = 2"),
    Change("purse_gap", "missing", "int8range(lower(missing), upper(missing) + 1)", "closed_at IS NULL"),
    Change("purse_gap", "closed_at", "now()", "closed_at IS NULL", named="purse_gap"),
    Change("purse_gap", "reported_at", "now()", "reported_at IS NULL"),
    Change("purse_gap", "reported_at", "NULL", "reported_at IS NOT NULL", named="purse_alarm"),
    # batches of terminals
    Change("terminal_batch", "computed", "overlay(computed PLACING '9' FROM 12)", "closed_at IS NOT NULL"),
    Change("terminal_batch", "computed", "overlay(computed PLACING '9' FROM 46)", "closed_at IS NOT NULL"),
    Change("terminal_batch", "computed", "overlay(computed PLACING '2' FROM 62)", "closed_at IS NOT NULL"),
    Change("terminal_batch", "claimed", "overlay(claimed PLACING '9' FROM 12)", "closed_at IS NOT NULL"),
    Change("terminal_batch", "state", "0", "closed_at IS NOT NULL"),
    Change("terminal_batch", "settled_at", "settled_at + interval '1 second'", "closed_at IS NOT NULL"),
    Change("terminal_batch", "closed_at", "closed_at + interval '1 second'", "closed_at IS NOT NULL"),
    Change(
        "terminal_batch_detail", "amount_fen", "amount_fen + 1", "line > 3", named="terminal_batch_difference"
    ),
    Change("terminal_batch_detail", "entry_no", "entry_no + 1"),
    Change("terminal_batch_difference", "booked", "booked::bigint + 1", "matter = 'AMOUNT'"),
    Change("terminal_batch_difference", "claimed", "claimed::bigint + 1", "matter = 'NOT_HERE'"),
    Change("terminal_batch_difference", "booked", "overlay(booked PLACING '7' FROM 12)", "matter = 'TOTALS'"),
    Change("terminal_batch_difference", "matter", "'CARD'", "matter = 'AMOUNT'"),
    # closed days
    Change("business_day", "ends_at", "ends_at + interval '1 second'", "state = 2"),
    Change("business_day", "sealed_at", "ends_at - interval '1 second'", "state = 2"),
    Change("business_day", "state", "1", "business_date = (SELECT min(business_date) FROM business_day)"),
    Change("clearing_day", "settlement_date", "settlement_date + 1", named="clearing_file"),
    Change("clearing_day", "created_at", "created_at + interval '1 second'", named="clearing_file"),
    Change("clearing_day", "acquirer_code", "'49999999'", named="clearing_file"),
    Change("clearing_day", "own_id", "'99993310'", named="clearing_summary"),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{fee_fen}', '1')", "step = 'fees'"),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{centre_fen}', '999')", "step = 'netting'"),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{net_fen}', '{}')", "step = 'netting'"),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{debits_fen}', '999')", "step = 'postings'"),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{bytes}', '999')", "step = 'files'"),
    Change("clearing_step", "state", "'RUNNING'", "step = 'fees'", named="business_day"),
    Change("clearing_merchant", "merchant_id", "'993350054119999'"),
    Change("clearing_merchant", "acquirer_id", "'12345678'"),
    Change("clearing_merchant", "category", "'9999'", named="clearing_file"),
    *plus("clearing_rule", "rate_ppm minimum_fen weight_issuer weight_switch weight_acquirer"),
    Change("clearing_rule", "cap_fen", "cap_fen + 1", "cap_fen IS NOT NULL"),
    Change("clearing_rule", "rule_no", "NULL", "rule_no IS NOT NULL"),
    *[
        Change("fee_rule", column, f"{column} + 1", "account_kind = 50", "clearing_rule")
        for column in ("rate_ppm", "minimum_fen")
    ],
    Change("fee_rule", "cap_fen", "cap_fen + 1", "cap_fen IS NOT NULL", "clearing_rule"),
    *plus("clearing_original", "original_stan original_kind"),
    Change("clearing_original", "original_at", "original_at + interval '1 second'"),
    *plus("clearing_source_line", "source_line"),
    *plus(
        "clearing_summary",
        "item_count volume_fen debit_count debit_fen credit_count credit_fen amount_fen fee_fen issuer_fee_fen switch_fee_fen"
        " acquirer_fee_fen credit_net_fen first_entry",
    ),
    Change("clearing_summary", "first_at", "first_at + interval '1 second'"),
    *plus(
        "clearing_offline",
        "confirmed_count confirmed_fen refused_count refused_fen adjusted_count adjusted_fen adjust_refused_count"
        " adjust_refused_fen pending_count pending_fen",
    ),
    *plus(
        "clearing_position",
        "issuing_count issuing_fen acquiring_count acquiring_fen issuer_fee_fen fees_paid_fen net_fen",
    ),
    Change("clearing_position", "ordinal", "ordinal + 7"),
    *plus("clearing_float", "opening_fen debit_fen credit_fen closing_fen", "code = 2101"),
    *plus("clearing_float", "debit_fen credit_fen", "code = 9001"),
    *plus("clearing_file", "line_count total_fen size_bytes ordinal"),
    Change("clearing_file", "sm3", "set_byte(sm3, 0, get_byte(sm3, 0) # 1)"),
    Change("clearing_file", "party", "'99999999'"),
    # seals
    Change(
        "clearing_seal", "secret", "set_byte(secret, 0, get_byte(secret, 0) # 1)", named="clearing_seal_block"
    ),
    *plus("clearing_seal", "leaf_count last_entry"),
    Change("clearing_seal", "root", "set_byte(root, 0, get_byte(root, 0) # 1)"),
    Change("clearing_seal", "shards", "array_append(shards, 7::smallint)"),
    Change("clearing_seal", "sm3", "set_byte(sm3, 0, get_byte(sm3, 0) # 1)"),
    *(
        Change("clearing_seal", "document", f"set_byte(document, {at}, get_byte(document, {at}) # 1)")
        for at in ("20", "60", "90", "300", "length(document) - 2", "length(document) - 160")
    ),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{root}', '1')", "step = 'evidence'"),
    *plus("clearing_seal_block", "block_no entry_no leaf_count line"),
    Change("clearing_seal_block", "root", "set_byte(root, 0, get_byte(root, 0) # 1)"),
    Change("clearing_file", "sm3", "set_byte(sm3, 0, get_byte(sm3, 0) # 1)", named="clearing_seal"),
    # what nothing else repeats
    Change(
        "journal", "amount_fen", "amount_fen + 1", "kind = 1 AND answer = '51'", named="clearing_seal_block"
    ),
    Change("journal", "entry_mode", "'999'", "kind = 1 AND answer = '00'", named="clearing_seal_block"),
    Change("journal", "digest", "set_byte(digest, 0, get_byte(digest, 0) # 1)", named="clearing_seal_block"),
    # what was frozen for reports, and the digests of the steps
    *plus("clearing_movement", "amount_fen move_count"),
    *plus("clearing_movement", "amount_fen", "source = 'RECORD'"),
    Change("clearing_movement", "class", "'OTHER'"),
    Change("clearing_movement", "source", "'DECISION'", "source = 'POSTING'"),
    *plus("clearing_suspense", "amount_fen card_no"),
    Change("clearing_suspense", "on_2201", "NOT on_2201"),
    Change("clearing_suspense", "loaded_on", "loaded_on - 1"),
    Change("clearing_alarm", "business_date", "business_date - 30"),
    *plus("clearing_report", "row_count"),
    Change("clearing_report", "sm3", "set_byte(sm3, 0, get_byte(sm3, 0) # 1)", named="clearing_step"),
    *[
        Change("clearing_step", "output_sha256", "sha256(output_sha256)", f"step = '{step}'")
        for step in ("netting", "postings", "files", "reports")
    ],
    Change("clearing_step", "input_sha256", "sha256(input_sha256)", "step = 'netting'"),
    Change("clearing_step", "error", "'FolderError'"),
    Change("clearing_step", "outcome", "jsonb_set(outcome, '{rows}', '1')", "step = 'reports'"),
    Change("clearing_day", "has_reports", "false", named="business_day"),
]

# Money of rules for risk: changed where there are cases (tests/unit/purse/risk/test_audited.py).
CHANGED_ELSEWHERE = (
    {("risk_case", "amount_fen"), ("risk_hit", "amount_fen")}
    | {
        # and of settlements, where there are some (tests/unit/clearing/settlement/test_audited.py)
        (table, f"{column}_fen")
        for table, columns in {
            "settlement_line": "carried_in net returned payout held carried",
            "settlement_line_day": "net",
            "settlement_order": "total",
            "settlement_file": "net",
            "payout": "amount",
            "payout_terms": "minimum held",
            "bank_statement": "opening closing credit debit",
            "bank_entry": "amount suspense",
        }.items()
        for column in columns.split()
    }
    | {
        # and of comparisons with partners (tests/unit/operations/test_audit_reconcile.py)
        (table, f"{column}_fen")
        for table, columns in {
            "partner_file": "total effect",
            "partner_line": "amount effect",
            "reconcile_run": "ours theirs",
            "reconcile_total": "ours theirs",
            "reconcile_difference": "ours theirs",
        }.items()
        for column in columns.split()
    }
)

# Money that nothing else repeats, so that no recomputation can tell.
UNSEEN: dict[tuple[str, str], str] = {
    ("binding", "transaction_limit_fen"): "an agreement between holder and bank, kept nowhere else",
    ("binding", "day_limit_fen"): "likewise",
    ("bank_statement", "books_fen"): "what the books came to at an instant that nobody else kept; for people",
    ("dispute_refusal", "amount_fen"): "what was asked for and refused, kept nowhere else",
    ("reconcile_run", "tolerance_fen"): "the partner's setting when it was compared",
}
