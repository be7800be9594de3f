"""`python -m convrun`."""

from convrun.entry import main

if __name__ == "__main__":
    main()
