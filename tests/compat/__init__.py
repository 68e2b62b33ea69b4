"""Judges: other people's tools read what ocimirror wrote, and it reads what they wrote."""
