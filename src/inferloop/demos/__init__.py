"""A pipeline, a data set and a story each, on real data that PyPI wheels carry."""
