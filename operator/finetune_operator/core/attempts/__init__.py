"""Attempts: one Job each. The whole gang of pods restarts together."""
