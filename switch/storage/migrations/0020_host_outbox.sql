-- depends: 0019_loads
-- What the sending of the outbox needs beyond what its filling does.

-- sending: somebody has it and will say what became of it before due_at; after that instant whoever had it is dead. Without this a
-- late answer, which makes a reversal due at once, could not tell one that waits from one that is on its way.
ALTER TABLE host_outbox ADD COLUMN sending boolean NOT NULL DEFAULT false;

-- result 3: an operator has settled what the host had refused; who and why is in registry_change.
ALTER TABLE host_outbox DROP CONSTRAINT host_outbox_result_check;
ALTER TABLE host_outbox ADD CONSTRAINT host_outbox_result_check CHECK (result IN (1, 2, 3));

-- The order of a leg's messages is that of their instants, read under the lock on its terminal: processes take their
-- numbers in blocks, so a later message can have the lower one.
DROP INDEX host_outbox_of_leg;
CREATE INDEX host_outbox_of_leg ON host_outbox (shard, leg_no, created_at, outbox_no) WHERE result IS NULL;
