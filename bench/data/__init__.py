"""Compares the data package with OpenAI's tool on pandas, plain tokenizers, and ideal packing."""
