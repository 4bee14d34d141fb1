"""Advice for the next run: rules over the evidence that a run leaves. Pure."""
