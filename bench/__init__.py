"""Benchmarks: each compares the product with another program or a lower bound on one machine."""
