"""Sample completions: prompts from the dataset, completed by the model before and after training.

`prompts` chooses them, `generation` completes them with the engine's model, and `completions` turns
the results into the samples of a report. Only `generation` depends on torch.
"""
