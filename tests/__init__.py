"""The tests of ocimirror."""
