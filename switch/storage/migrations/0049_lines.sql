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
CREATE TYPE leg_line AS (
    terminal_no integer, batch_no integer, stan integer, merchant_no integer, kind smallint, account_kind smallint, asked_at timestamptz,
    gives_up_at timestamptz, leg_no bigint, amount_fen bigint, debit_code smallint, debit_owner bigint, service smallint, step smallint,
    trace integer, state smallint,
    terminal_id text, merchant_id text, pan text, entry_mode text, rrn text, host text, transmitted text, ended_at timestamptz,
    ended_by bigint, binding_no bigint);
CREATE TYPE ended_leg_line AS (
    leg_no bigint, state smallint, ended_at timestamptz, ended_by bigint, host_code text, host_auth text, host_day text);
CREATE TYPE outbox_line AS (
    outbox_no bigint, leg_no bigint, step smallint, service smallint, amount_fen bigint, entry_no bigint, trace integer,
    host text, reason text, rrn text, transmitted text);
