"""HTTP/2 and gRPC transport of our own: frames, HPACK, flow control, calls; knows bytes, no models."""
