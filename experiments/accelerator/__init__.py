"""What there is to measure on an accelerator, by one command."""
