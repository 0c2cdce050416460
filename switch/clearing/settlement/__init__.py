"""Settlement 結算: closed days' nets become payouts, payouts become a payment order, and the bank's statements say what became of it.

    prepare      what each merchant and institution is owed or owes for the clearing days of a settlement date, once and for all
    approve      by another person than who prepared
    order        the payment order file (ISO 20022 pain.001); from here on the money is booked as gone
    statements   camt.053 and camt.054 read back: paid, returned, collected, or money nobody can explain

Every step is one transaction and can be repeated; the files are made again from what was stored, byte for byte.
"""
