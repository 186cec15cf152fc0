"""The command line with a `tiny` text encoder whose words never drop out, for comparisons of one process with several: each
process draws its own dropout, as it should, so with it no two of them could agree."""

from qle.text import tiny

tiny.DROPOUT = 0.0

if __name__ == "__main__":
    from qle.cli.app import main

    main()
