"""``python -m himl_container``: the command line of this very interpreter, whatever is on the PATH."""

from himl_container.cli.main import main

if __name__ == "__main__":
    main()
