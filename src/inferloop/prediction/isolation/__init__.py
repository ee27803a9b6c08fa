"""A model's engine in a process of its own: what crashes there does not take the server along."""
