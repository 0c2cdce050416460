-- Signatures of files (signatures.py).

-- name: signatures
SELECT name, signature FROM file_signature WHERE name = ANY(%(names)s);

-- name: add_signatures
INSERT INTO file_signature (name, sm3, key_name, public_key, signature)
SELECT name, decode(sm3, 'hex'), key_name, public_key, signature
  FROM unnest(%(names)s::text[], %(sm3s)s::text[], %(key_names)s::text[], %(public_keys)s::bytea[], %(signatures)s::bytea[])
       AS s (name, sm3, key_name, public_key, signature);
