"""One file a command: what each does, told in the words of stores and copy."""
