"""`finetune tokenize`: the tokens of a text, or of an example and what is learned of it."""
