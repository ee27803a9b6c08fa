"""What a score means: declared conditions, and what they remember per key."""
