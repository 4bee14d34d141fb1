"""Tokenizes examples, and writes and reads the tokenized dataset."""
