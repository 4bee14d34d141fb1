"""The prepare Job: checks every line, resolves hyperparameters, and writes the dataset."""
