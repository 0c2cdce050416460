"""Keys: purposes, derivation, MACs, PIN blocks, purse cryptography and the vault. Nobody else holds a clear key.

Other rooms talk to `keys.vault.Vault`; what lies under it is for the vault, the known-answer checker and the tests.
"""
