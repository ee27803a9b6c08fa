"""What `make bench-serve` is made of: models, servers under test, load, and figures of their own."""
