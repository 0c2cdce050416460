-- depends: 0021_clearing_legs
-- Intake asks about thousands of cards at a time, by number and in whatever shard: everything it needs is in this index.
-- The other columns of card, which change with losses and PINs, are not in it, so those updates do not touch it.
CREATE INDEX card_facts ON card (pan) INCLUDE (shard, card_no, valid_from, valid_through);
