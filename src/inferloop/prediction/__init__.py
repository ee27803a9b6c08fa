"""The hot path: Router -> Predictor -> Batcher -> Session."""
