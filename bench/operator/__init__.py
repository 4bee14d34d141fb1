"""Compares the operator with a script that creates the same objects, on kwok."""
