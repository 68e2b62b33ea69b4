"""The copy engine, as a program calls it: many images, one run."""
