"""What is done with a trained run: answers to new texts, and exports for others to load."""
