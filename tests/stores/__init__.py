"""Places that hold images: layouts, archives and what tools write, byte for byte."""
