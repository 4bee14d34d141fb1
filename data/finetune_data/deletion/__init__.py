"""The Job that deletes the files of a Model: `python -m finetune_data.deletion`."""
