-- The medical policy as operators edit it (medical_desk.py).

-- name: list_policies
SELECT policy_no, category, own_pay_ppm, transaction_fen, day_fen, year_fen, splits, valid_from, valid_to
  FROM medical_policy ORDER BY category, valid_from;

-- name: save_policy
INSERT INTO medical_policy (category, own_pay_ppm, transaction_fen, day_fen, year_fen, splits, valid_from, valid_to)
VALUES (%(category)s, %(own_pay_ppm)s, %(transaction_fen)s, %(day_fen)s, %(year_fen)s, %(splits)s, %(valid_from)s, %(valid_to)s)
RETURNING policy_no;

-- name: end_policy
UPDATE medical_policy SET valid_to = %(last)s WHERE policy_no = %(policy_no)s;

-- name: note_policy
INSERT INTO registry_change (actor, subject, change) VALUES (%(actor)s, %(subject)s, %(change)s);
