"""Where messages come from; each file is one plugin."""
