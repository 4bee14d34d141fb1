"""The deletion Job of a Model: `python -m finetune_data.deletion`."""
