"""Advice for the next run: rules over the curves and counts of this one. Pure."""
