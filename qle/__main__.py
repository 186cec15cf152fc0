"""python -m qle."""

from qle.cli import main

if __name__ == "__main__":
    main()
