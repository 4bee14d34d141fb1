"""Checks each requirement for fine-tuning; each finding has a fix."""
