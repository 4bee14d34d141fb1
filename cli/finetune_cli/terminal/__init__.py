"""The terminal: printing, formatting, errors, and the program's own settings."""
