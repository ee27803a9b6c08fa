"""Models that keep state between the requests of a sequence."""
