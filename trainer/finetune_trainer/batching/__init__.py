"""Which examples a step, a rank, and a micro-batch hold. Pure: numpy, no torch."""
