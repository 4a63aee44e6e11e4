"""``python -m volspike`` is the command ``volspike``."""

from volspike.cli import main

if __name__ == "__main__":
    main()
