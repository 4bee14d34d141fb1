"""Evaluates a model by its answers: which rows, how answers are graded, and what the grades say."""
