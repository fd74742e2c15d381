"""One file a benchmark, found by its name ``BENCHMARK``."""
