"""The real pipeline in a simulated world: time, sources, sinks, disk and model are twins that fail by a seed."""
