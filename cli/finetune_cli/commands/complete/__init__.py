"""`finetune complete`: text generation on this machine. Sampling is pure and needs no torch."""
