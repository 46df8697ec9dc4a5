"""A run seen and changed from outside while it goes on: its state, the words, who answers them, a file to follow."""
