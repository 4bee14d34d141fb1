"""Where models are, their files on this machine, and the models in memory."""
