"""`finetune complete`: text generation on this machine."""
