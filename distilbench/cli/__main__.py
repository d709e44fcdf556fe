"""`python -m distilbench.cli`: the command line."""

from distilbench.cli.main import main

if __name__ == "__main__":
    main()
