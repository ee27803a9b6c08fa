"""gRPC: the Open Inference Protocol v2 as a service over any transport that keeps `net.grpc_call.Call`."""
