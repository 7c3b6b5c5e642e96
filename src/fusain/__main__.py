"""`python -m fusain` is the command `fusain`."""

from fusain.cli.main import main

if __name__ == "__main__":
    main()
