"""How good a model is: accuracy, calibration, parity, latency, the numpy head fit, and one Report of it all."""
