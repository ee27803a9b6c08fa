"""What the server does, the same for REST and gRPC: plain values in, plain values out."""
