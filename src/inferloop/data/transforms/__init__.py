"""The declared steps from fields to tensors and from tensors to labels, executed."""
