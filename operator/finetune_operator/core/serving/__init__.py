"""Served Models: their objects, how many pods they have, and why these are not ready."""
