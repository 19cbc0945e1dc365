"""What answers: the local model through the engine."""
