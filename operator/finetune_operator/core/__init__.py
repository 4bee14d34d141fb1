"""Decisions: pure functions from one observed value to a plan. No client, no clock, no environment.

A policy is a file of its own, named after its noun; each verdict has a machine reason and a human
message, and those two are what the conditions, the Events and the error say.
"""
