"""`finetune prepare-data`: checks files with `finetune_data`, asks about changes, writes."""
