"""The servers that complete prompts with fine-tuned models, and the requests to them.

Which server answers for a model is a value (`target`). A server that a Model names is not trusted:
its address is checked after the resolution of its name, and the connection goes to exactly that
address (`addresses`, `connections`). No server gets the caller's credential.

Models that the operator serves sleep while they are not used (`waking`, `renewals`).
"""
