"""From a decision to a confirmed effect: retries, breakers, lanes, acknowledgement in order."""
