"""Bundle + Target -> Session."""
