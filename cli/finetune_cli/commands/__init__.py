"""One module or package per command, named after the command."""
