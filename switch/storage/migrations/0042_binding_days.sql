-- depends: 0038_fee_changes
-- What a bound bank card has paid in a day, so that its day limit binds: counted from the legs that its payments made.

-- binding_no: NULL where the number is not a bound card's, or the binding has no day limit.
ALTER TABLE host_leg ADD COLUMN binding_no bigint;
CREATE INDEX host_leg_of_binding ON host_leg (shard, binding_no, business_date) WHERE binding_no IS NOT NULL;
