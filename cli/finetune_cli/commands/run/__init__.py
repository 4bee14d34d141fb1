"""`finetune run`: a FineTune on this machine, with no cluster."""
