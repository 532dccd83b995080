"""``python -m tardigrad`` is the command line."""

from tardigrad.cli import main

if __name__ == "__main__":  # the name of a class in a saved run may import any module of the package
    main()
