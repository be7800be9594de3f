"""`python -m convrun`."""

from convrun.cli import main

if __name__ == "__main__":
    main()
