"""Source -> Rule -> Sink: pipelines that decide every message once and lose none."""
