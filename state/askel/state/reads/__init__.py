"""What is read of runs: records, history and its folds, listings."""
