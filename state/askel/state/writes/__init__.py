"""What an embedding program changes: each call one list of changes, applied whole or not at all."""
