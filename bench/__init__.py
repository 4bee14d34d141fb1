"""Measurements against a peer or a floor, in one run on one machine."""
