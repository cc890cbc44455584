"""`python -m xuebu` is the command `xuebu`."""

from xuebu.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
