"""A thin client of a running server."""
