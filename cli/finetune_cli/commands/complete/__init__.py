"""`finetune complete`: a model's next words, on this machine; sampling is pure, without torch."""
