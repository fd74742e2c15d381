"""How daemons and inline mode drive runs: activations, turns, attempts, recorded commands."""
