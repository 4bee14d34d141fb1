"""The checks, one module per subject. They do not import each other."""
