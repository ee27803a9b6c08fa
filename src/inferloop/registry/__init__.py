"""Versions of Bundles, the aliases that point at them, and the state that servers converge to."""
