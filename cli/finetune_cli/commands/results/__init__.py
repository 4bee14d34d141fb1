"""`finetune results`: results.csv as text, as JSON, or as a plot in the terminal or a PNG file."""
