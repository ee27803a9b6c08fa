"""A framework's file or network -> a Bundle, with proof that it computes the same."""
