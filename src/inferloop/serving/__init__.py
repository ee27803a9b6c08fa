"""The Open Inference Protocol v2 on sockets: operations, REST and gRPC around them, and the server that holds all."""
