"""results.csv of a FineTune: as it is, as values, as a plot in the terminal or a PNG."""
