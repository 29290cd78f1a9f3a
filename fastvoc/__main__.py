"""`python -m fastvoc` is the command `fastvoc`."""

from fastvoc.cli import main

if __name__ == "__main__":
    main()
