"""A directory of models, in our layout and in those of Triton and OpenVINO Model Server, as a catalog for the Router."""
