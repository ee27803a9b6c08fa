"""REST: the Open Inference Protocol v2 over HTTP/1.1, raw requests and pages; bytes in, bytes out."""
