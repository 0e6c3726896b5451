"""``python -m distribu``."""

from distribu.entrypoints.cli import main

if __name__ == "__main__":
    main()
