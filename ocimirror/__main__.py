"""python -m ocimirror: the command line."""

from ocimirror.cli import main

if __name__ == "__main__":
    main()
