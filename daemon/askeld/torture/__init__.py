"""The torture runner: real workers, real faults, and a judge who believes nobody."""
