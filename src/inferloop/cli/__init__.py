"""The command line: one file a verb; composes what stands below."""
