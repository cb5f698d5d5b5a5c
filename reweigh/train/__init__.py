"""Training: options, the run folder, one improvement, and the loop around it."""
