"""Chat templates with the structure of real families, their tokenizers, and conversations."""
