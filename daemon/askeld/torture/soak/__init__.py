"""The soak: hours of load and faults in minutes, to see whether anything grows that must not."""
