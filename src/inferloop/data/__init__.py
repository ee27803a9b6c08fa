"""Codecs, transforms, datasets, the ledger and the journal: from bytes to rows and back."""
