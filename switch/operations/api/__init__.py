"""The API under /api/v1: what closed days came to, read-only, for those who have a token. docs/api.md."""
