"""Models made of other models: a graph of steps, checked when it is loaded."""
