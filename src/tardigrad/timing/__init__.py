"""Models of durations."""
