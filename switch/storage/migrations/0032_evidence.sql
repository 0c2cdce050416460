-- depends: 0031_numbers_of_batches
-- The seal of a day 存證: a Merkle tree over its journal, postings and offline records, and the digests of its files (docs/evidence.md).

-- secret: drawn before anything is hashed, so that a run after a crash makes the same leaves. From it come the salts of the commitments
-- in the leaves. It protects leaves that leave this house; whoever reads this table reads the rows as well.
-- last_entry, shards: the last number of a leaf, and where postings lie, so that a proof need not look for them.
-- document: the .seal file. It holds an instant and a signature that nobody can make again, so it is stored once. sm3: of the document.
CREATE TABLE clearing_seal (
    business_date date PRIMARY KEY REFERENCES clearing_day,
    secret        bytea NOT NULL CHECK (length(secret) = 32),
    leaf_count    bigint CHECK (leaf_count >= 0),
    root          bytea CHECK (length(root) = 32),
    last_entry    bigint,
    shards        smallint[],
    document      bytea,
    sm3           bytea CHECK (length(sm3) = 32),
    CHECK (num_nulls(leaf_count, root, shards, document, sm3) IN (0, 5)),
    CHECK ((last_entry IS NULL) = (coalesce(leaf_count, 0) = 0))
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_seal FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Subtrees of 4 096 leaves, the last one of what is left: a proof reads the leaves of one of them and the roots of all.
-- entry_no, shard, line: of the first leaf.
CREATE TABLE clearing_seal_block (
    business_date date NOT NULL REFERENCES clearing_seal,
    block_no      integer NOT NULL CHECK (block_no >= 0),
    entry_no      bigint NOT NULL,
    shard         smallint NOT NULL,
    line          smallint NOT NULL,
    leaf_count    integer NOT NULL CHECK (leaf_count BETWEEN 1 AND 4096),
    root          bytea NOT NULL CHECK (length(root) = 32),
    PRIMARY KEY (business_date, block_no)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_seal_block FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();
