"""What a person sees of a run: the live display, the summary, the page, TensorBoard's events."""
