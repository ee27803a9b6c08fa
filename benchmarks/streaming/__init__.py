"""What the benchmark of streams drives: a model of 32 numbers, messages for it, our pipeline and the bare loop of the client."""
