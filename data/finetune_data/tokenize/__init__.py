"""From rows to tokens: tokenizer, chat template, and the tokenized dataset."""
