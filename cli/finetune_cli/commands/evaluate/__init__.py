"""`finetune evaluate`: the answers of a model on this machine, graded."""
