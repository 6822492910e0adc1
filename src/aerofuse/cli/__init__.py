"""The command `aerofuse`."""
