-- depends: 0030_bookings
-- Fee rules change by proposal: one person asks, another approves, and what was asked for stays on record whatever became of it.

-- decider: who approved or withdrew. A proposal is approved by another person than the one who made it.
CREATE TABLE fee_proposal (
    proposal_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    proposed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    proposer    text NOT NULL CHECK (proposer <> ''),
    reason      text NOT NULL CHECK (reason <> ''),
    state       text NOT NULL DEFAULT 'PROPOSED' CHECK (state IN ('PROPOSED', 'APPROVED', 'WITHDRAWN')),
    decided_at  timestamptz,
    decider     text CHECK (decider <> ''),
    note        text NOT NULL DEFAULT '',
    CHECK ((state = 'PROPOSED') = (decided_at IS NULL) AND (decided_at IS NULL) = (decider IS NULL)),
    CHECK (state <> 'APPROVED' OR lower(decider) <> lower(proposer))
);

-- A rule to come, as fee_rule. rule_no: what it became.
CREATE TABLE fee_proposal_rule (
    proposal_no     integer NOT NULL REFERENCES fee_proposal,
    line            smallint NOT NULL CHECK (line >= 1),
    merchant_no     integer REFERENCES merchant,
    category        text CHECK (category ~ '^[0-9]{4}$'),
    account_kind    smallint NOT NULL CHECK (account_kind IN (10, 20, 40, 50)),
    rate_ppm        integer NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    minimum_fen     bigint NOT NULL CHECK (minimum_fen >= 0),
    cap_fen         bigint CHECK (cap_fen >= 0),
    weight_issuer   integer NOT NULL CHECK (weight_issuer BETWEEN 0 AND 1000000),
    weight_switch   integer NOT NULL CHECK (weight_switch BETWEEN 0 AND 1000000),
    weight_acquirer integer NOT NULL CHECK (weight_acquirer BETWEEN 0 AND 1000000),
    valid_from      date NOT NULL,
    valid_to        date CHECK (valid_to >= valid_from),
    rule_no         integer UNIQUE REFERENCES fee_rule,
    PRIMARY KEY (proposal_no, line),
    CHECK (merchant_no IS NULL OR category IS NULL),
    CHECK (weight_issuer + weight_switch + weight_acquirer > 0)
);

-- What is decided stays.
CREATE FUNCTION refuse_change_of_fee_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (SELECT state FROM fee_proposal WHERE proposal_no = OLD.proposal_no) <> 'PROPOSED' THEN
        RAISE EXCEPTION 'fee proposal % stays as it is', OLD.proposal_no USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER decided BEFORE UPDATE OR DELETE ON fee_proposal FOR EACH ROW EXECUTE FUNCTION refuse_change_of_fee_proposal();
CREATE TRIGGER decided BEFORE UPDATE OR DELETE ON fee_proposal_rule FOR EACH ROW EXECUTE FUNCTION refuse_change_of_fee_proposal();

-- Who makes good what a fare was reduced by, and how much of it. Of the rules in force on the clearing date the most specific counts: one for the
-- merchant before one for all, one for the line before one for the industry. NULL: any, or no limit. discount: that of a transfer, or any other.
CREATE TABLE subsidy_rule (
    rule_no      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sponsor_id   text NOT NULL REFERENCES institution,
    discount     text NOT NULL CHECK (discount IN ('TRANSFER', 'OTHER')),
    merchant_no  integer REFERENCES merchant,
    industry     smallint CHECK (industry BETWEEN 1 AND 255),
    line         text CHECK (line ~ '^[0-9A-F]{4}$'),
    rate_ppm     integer NOT NULL CHECK (rate_ppm BETWEEN 1 AND 1000000),
    ride_cap_fen bigint CHECK (ride_cap_fen > 0),
    day_cap_fen  bigint CHECK (day_cap_fen > 0),
    valid_from   date NOT NULL,
    valid_to     date CHECK (valid_to >= valid_from),
    EXCLUDE USING gist (
        int4range(coalesce(merchant_no, -1), coalesce(merchant_no, -1), '[]') WITH &&,
        int4range(coalesce(industry, -1), coalesce(industry, -1), '[]') WITH &&,
        int4range(hashtext(coalesce(line, '')), hashtext(coalesce(line, '')), '[]') WITH &&,
        int4range(length(discount), length(discount), '[]') WITH &&,
        daterange(valid_from, valid_to, '[]') WITH &&
    )
);

-- What a day's rides came to under a rule: a claim of the merchant on the sponsor. asked_fen: before the day's cap.
CREATE TABLE clearing_subsidy (
    business_date date NOT NULL REFERENCES clearing_day,
    rule_no       integer NOT NULL,
    sponsor_id    text NOT NULL,
    merchant_no   integer NOT NULL,
    ride_count    bigint NOT NULL CHECK (ride_count > 0),
    discount_fen  bigint NOT NULL CHECK (discount_fen > 0),
    asked_fen     bigint NOT NULL CHECK (asked_fen BETWEEN 0 AND discount_fen),
    subsidy_fen   bigint NOT NULL CHECK (subsidy_fen BETWEEN 0 AND asked_fen),
    PRIMARY KEY (business_date, rule_no, merchant_no)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_subsidy FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

CREATE FUNCTION subsidies_of_day(wanted date)
    RETURNS TABLE (rule_no integer, sponsor_id text, merchant_no integer, ride_count bigint, discount_fen bigint, asked_fen bigint, subsidy_fen bigint)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH ride AS (  -- fares are few, rides are many
        SELECT merchant_no, get_byte(raw, 78)::smallint AS industry, upper(encode(substr(raw, 80, 2), 'hex')) AS line,
               CASE WHEN get_byte(raw, 93) & 2 <> 0 THEN 'TRANSFER' ELSE 'OTHER' END AS discount, full_fare(raw) - amount_fen AS fen, count(*) AS rides
          FROM (SELECT merchant_no, raw, amount_fen FROM purse_record
                 WHERE business_date = wanted AND result IN ('10', '00') AND record_kind <> 2 AND batch_no >= 0
                UNION ALL
                SELECT merchant_no, raw, amount_fen FROM foreign_verdict WHERE business_date = wanted AND result = '00' AND record_kind <> 2) AS paid
         WHERE get_byte(raw, 78) <> 0 AND full_fare(raw) > amount_fen
           AND EXISTS (SELECT FROM subsidy_rule WHERE wanted BETWEEN valid_from AND coalesce(valid_to, 'infinity'))
         GROUP BY 1, 2, 3, 4, 5
    )
    SELECT s.rule_no, s.sponsor_id, r.merchant_no, sum(r.rides)::bigint, sum(r.rides * r.fen)::bigint, sum(r.rides * each.fen)::bigint,
           least(sum(r.rides * each.fen), s.day_cap_fen)::bigint
      FROM ride r
     CROSS JOIN LATERAL (
           SELECT * FROM subsidy_rule k
            WHERE k.discount = r.discount AND wanted BETWEEN k.valid_from AND coalesce(k.valid_to, 'infinity')
              AND coalesce(k.merchant_no, r.merchant_no) = r.merchant_no AND coalesce(k.industry, r.industry) = r.industry
              AND coalesce(k.line, r.line) = r.line
            ORDER BY k.merchant_no IS NULL, k.line IS NULL, k.industry IS NULL
            LIMIT 1) AS s
     CROSS JOIN LATERAL (SELECT least((r.fen * s.rate_ppm + 500000) / 1000000, s.ride_cap_fen) AS fen) AS each
     GROUP BY s.rule_no, s.sponsor_id, s.day_cap_fen, r.merchant_no
$$;
