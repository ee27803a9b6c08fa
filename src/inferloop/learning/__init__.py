"""From feedback to a better version: a refitted head, a guard that must agree, and the move of an alias."""
