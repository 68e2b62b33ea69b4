"""One battery over every store: what a store promises, each of them keeps."""
