-- depends: 0008_terminal_public_keys
-- Whose cards are whose, and how far they may be used. Circles lie within each other: LOCAL, HANGZHOU, DELTA, NATION.

-- NULL stands for what a registry from before these columns means.
-- bins: the leading digits of an issuer's card numbers, separated by blanks; NULL: 31 and the last four digits of the institution code.
-- circle: the smallest circle around us in which the issuer lies; NULL: LOCAL for own issuers, NATION for others.
-- scope: the widest circle in which its cards may be used.
ALTER TABLE card_issuer
    ADD COLUMN bins   text CHECK (bins ~ '^[0-9]{2,12}( [0-9]{2,12})*$'),
    ADD COLUMN circle text CHECK (circle IN ('LOCAL', 'HANGZHOU', 'DELTA', 'NATION')),
    ADD COLUMN scope  text NOT NULL DEFAULT 'NATION' CHECK (scope IN ('LOCAL', 'HANGZHOU', 'DELTA', 'NATION'));
ALTER TABLE card_issuer ADD CHECK (NOT own OR circle = 'LOCAL');

-- As an acquirer: the widest circle from which its merchants take cards.
ALTER TABLE institution
    ADD COLUMN scope text NOT NULL DEFAULT 'NATION' CHECK (scope IN ('LOCAL', 'HANGZHOU', 'DELTA', 'NATION'));
