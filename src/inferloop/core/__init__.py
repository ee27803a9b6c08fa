"""The nouns: errors, Signature, Bundle, Target, Report, plugin protocols and table, telemetry."""
