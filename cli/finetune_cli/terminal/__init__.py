"""The terminal: output, formatting, errors, and the user's settings."""
