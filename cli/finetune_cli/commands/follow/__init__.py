"""Following a FineTune: its story line by line, where it stands in one live line, its end."""
