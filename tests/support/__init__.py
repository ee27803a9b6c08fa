"""Tiny bundles, sessions and samples that every test may use."""
