"""Texts as people and terminals may see them."""
