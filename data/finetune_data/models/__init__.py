"""Base models: their files, their shape, and the memory that they need."""
