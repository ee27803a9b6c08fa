"""The append-only record of predictions, decisions and feedback."""
