"""Text generation with one model, token by token. Sampling is pure and needs no torch."""
