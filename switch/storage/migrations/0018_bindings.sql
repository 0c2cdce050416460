-- depends: 0017_medical
-- Bound bank cards 綁定銀行卡: which bank account pays when a citizen card is used for it. A terminal can only mean the default one.

CREATE SEQUENCE binding_no;

-- A row is an agreement between holder and bank that the bank has confirmed; what it says of card, bank and number never changes, and one
-- that has ended stays ended: a new agreement is a new row. Agreements are unique for a bank; the import sees to it over shards.
-- sealed: the bank card's number under the local master key, bound to citizen card, bank and agreement. tag: keyed, equal for equal numbers.
-- The bank card's PIN is nowhere.
CREATE TABLE binding (
    shard                 smallint NOT NULL,
    binding_no            bigint NOT NULL DEFAULT nextval('binding_no'),
    card_no               bigint NOT NULL,
    institution_id        text NOT NULL REFERENCES institution,
    agreement_id          text NOT NULL CHECK (agreement_id ~ '^[!-~]{1,32}$'),
    sealed                bytea NOT NULL,
    tag                   bytea NOT NULL CHECK (length(tag) = 16),
    is_default            boolean NOT NULL,
    confirmed_at          timestamptz NOT NULL,  -- the bank confirmed name and identity number of the holder
    transaction_limit_fen bigint CHECK (transaction_limit_fen >= 0),
    day_limit_fen         bigint CHECK (day_limit_fen >= 0),
    state                 text NOT NULL CHECK (state IN ('ACTIVE', 'ENDED')),
    bound_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    bound_by              text NOT NULL,
    ended_at              timestamptz,
    ended_by              text,
    PRIMARY KEY (shard, card_no, binding_no),
    UNIQUE (shard, institution_id, agreement_id),
    CHECK ((state = 'ENDED') = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE UNIQUE INDEX binding_default ON binding (shard, card_no) WHERE state = 'ACTIVE' AND is_default;
CREATE UNIQUE INDEX binding_once ON binding (shard, card_no, tag) WHERE state = 'ACTIVE';
CREATE INDEX binding_no_of ON binding (binding_no);

CREATE FUNCTION keep_binding() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND OLD.state = 'ACTIVE'
       AND (OLD.shard, OLD.binding_no, OLD.card_no, OLD.institution_id, OLD.agreement_id, OLD.sealed, OLD.tag, OLD.bound_at, OLD.bound_by)
         = (NEW.shard, NEW.binding_no, NEW.card_no, NEW.institution_id, NEW.agreement_id, NEW.sealed, NEW.tag, NEW.bound_at, NEW.bound_by) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a binding can only be ended, never rewritten' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON binding FOR EACH ROW EXECUTE FUNCTION keep_binding();
