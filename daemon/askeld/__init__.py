"""The daemon of askel: the process that reads commands, drives runs and executes steps."""
