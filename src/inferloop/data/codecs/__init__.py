"""From the bytes of one message to a Sample with named fields."""
