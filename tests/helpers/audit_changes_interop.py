"""What the tests of the audit change in clearing between cities, one at a time."""

from tests.helpers.audit_changes import Change, plus

CHANGES_BETWEEN_CITIES = [
    Change("interop_tariff", "rate_ppm", "rate_ppm + 100000", named="clearing_summary"),
    Change("interop_tariff", "weight_centre", "weight_centre + 5", named="clearing_summary"),
    Change("interop_tariff", "minimum_fen", "minimum_fen + 1000", named="interop_position"),
    Change("interop_tariff", "cap_fen", "0", named="clearing_interop"),
    *plus("clearing_interop", "record_count amount_fen issuer_fee_fen"),
    *plus("posting", "amount_fen", "debit_code = 2102 AND credit_code = 6001"),
    Change("foreign_hold", "original_entry", "original_entry + 900000"),
    Change("foreign_hold", "business_date", "business_date - 9"),
    Change("foreign_hold", "held_at", "held_at - interval '3 days'"),
    Change("purse_record", "credit_owner", "99993350", "batch_no = -1 AND result = '10'"),
    Change("purse_record", "merchant_no", "1", "batch_no = -1 AND result = '10'"),
    *plus("received_file", "total_fen lines_done", "name LIKE 'DF%'"),
    *plus("received_file", "total_fen lines_done", "name LIKE 'FH%'"),
    Change("received_file", "total_fen", "total_fen + 1", "name LIKE 'DT________99999999%'"),
    Change(
        "received_file", "results", "results - '04'", "name LIKE 'DT________99999999%' AND results ? '04'"
    ),
    Change("interop_arrival", "clearing_date", "clearing_date - 1"),
    Change("interop_arrival", "late", "NOT late"),
    *plus("interop_record", "amount_fen atc", "refused IS NULL"),
    Change("interop_record", "card", "card + 1", "refused IS NULL"),
    Change("interop_record", "issuer_id", "'99993350'", "issuer_id = '99993310' AND refused IS NULL"),
    Change("interop_record", "refused", "'02'", "refused = '03'", named="received_file"),
    Change("interop_record", "refused", "'08'", "refused IS NULL", named="received_file"),
    Change("interop_verdict", "result", "'01'", "result = '10'", named="received_file"),
    Change("interop_verdict", "result", "'00'", "result = '01'", named="interop_position"),
    Change("interop_verdict", "answer_no", "NULL", "result = '10'"),
    Change("interop_verdict", "counted_on", "counted_on + 1"),
    Change("interop_verdict", "counted_on", "NULL"),
    Change("interop_hold", "line", "line + 1000"),
    *plus("interop_day", "centre_fen unanswered"),
    Change("interop_day", "forwarded_at", "forwarded_at + interval '1 second'", named="interop_file"),
    *plus(
        "interop_position",
        "issuing_count issuing_fen acquiring_count acquiring_fen issuer_fee_fen fees_paid_fen net_fen ordinal",
    ),
    Change("interop_position", "state", "'RECEIVES'", "net_fen < 0"),
    *plus("interop_file", "line_count total_fen size_bytes ordinal"),
    Change("interop_file", "sm3", "set_byte(sm3, 0, get_byte(sm3, 0) # 1)"),
    Change("interop_file", "party", "'99999999'", "name LIKE 'DF%'"),
    Change("interop_file", "created_at", "created_at + interval '1 second'"),
]
