"""Dataset -> Bundle: networks that learn from their errors, with curves, resume, calibration and a parity proof."""
