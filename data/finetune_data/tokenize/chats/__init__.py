"""Chats: rendered by the base model's template, verified turn by turn, and encoded.

For each answer that the model learns, the context is exactly the generation prompt that an
inference server renders, and the learned text is the rest of the turn, up to the token that ends
it. Nothing about a template is assumed: every turn of every conversation is rendered both ways.
"""
