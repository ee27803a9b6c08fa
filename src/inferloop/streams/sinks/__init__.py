"""Where decisions act; each file is one plugin."""
