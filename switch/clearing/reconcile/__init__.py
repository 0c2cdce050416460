"""Reconciliation 對賬 with banks and other cities: their files about what they owe us, compared with our books, and what people do about differences."""
