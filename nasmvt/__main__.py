"""`python -m nasmvt`: the command line, for torchrun and for where no script is installed."""

from nasmvt.cli.main import main

if __name__ == "__main__":
    main()
