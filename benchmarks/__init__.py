"""The benchmarks: ``python -m benchmarks``; README.md says how to run and how to read them."""
