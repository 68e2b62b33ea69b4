"""One module or room at a time, through its public names."""
