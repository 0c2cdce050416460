-- Rows that a batch of the ledger reads or writes by, as one parameter each (switch/storage/records.py). The order of the columns is that of
-- the program: never change one of these, make another.
CREATE TYPE key_line AS (terminal_no integer, batch_no integer, stan integer, since date);
CREATE TYPE account_line AS (account_id bigint, balance_fen bigint, pin_failures smallint);
CREATE TYPE posting_line AS (
    entry_no bigint, line smallint, debit_code smallint, debit_owner bigint, credit_code smallint, credit_owner bigint, amount_fen bigint);
CREATE TYPE journal_line AS (
    terminal_no integer, batch_no integer, stan integer, class smallint, entry_no bigint, merchant_no integer, kind smallint,
    amount_fen bigint, effect_fen bigint,
    account_id bigint, pan text, answer text, rrn text, auth_code text, entry_mode text, digest bytea, original_date date,
    original_entry bigint, extra bytea);
