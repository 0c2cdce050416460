-- depends: 0007_transaction_numbers
-- The SM2 public key of a terminal that fetches its master key over the line (終端主密鑰下載): the key is sent to nobody else.
ALTER TABLE terminal ADD COLUMN sm2_public_key text CHECK (sm2_public_key ~ '^04[0-9A-F]{128}$');
