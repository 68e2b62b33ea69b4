"""The registry client, through its public door, against real servers."""
