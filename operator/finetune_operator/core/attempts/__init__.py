"""Attempts of a training: one Job each. All pods of an attempt restart together."""
