"""`finetune prepare-data`: the checks of the data room, shown, asked about and written."""
