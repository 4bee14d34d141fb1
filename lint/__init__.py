"""The project's own lint: `python -m lint` checks what ruff, mypy, and import-linter do not.

- `sizes`: a product folder holds at most 20 Python files, and a product file at most 400 lines.
- `cycles`: no import cycle, neither between files nor between packages.
- `packages`: every list that must name the product packages names all of them.
- `prose`: the phrases in prose.toml that do not belong in this project's English.

Each check yields `Problem` values and prints nothing.
"""
