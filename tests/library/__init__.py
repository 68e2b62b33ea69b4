"""ocimirror as a package of other programs: only what `from ocimirror import …` gives."""
