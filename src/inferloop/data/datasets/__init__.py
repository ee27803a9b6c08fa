"""Labeled samples from files, and their splits."""
