"""The prepare Job: it checks and tokenizes the data of a FineTune."""
