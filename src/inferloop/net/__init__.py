"""HTTP/1.1 transport: connections, limits and graceful drain; knows bytes, no models."""
