"""``python -m xpander_magics demo | local | doctor``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from xpander_magics import __version__
from xpander_magics.errors import XpanderError
from xpander_magics.safety import plain


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit status, 0 for success."""
    parser = argparse.ArgumentParser(prog="python -m xpander_magics", description="xpander.ai in Jupyter.")
    parser.add_argument("--version", action="version", version=f"xpander_magics {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, told: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=told, description=f"{told[:1].upper()}{told[1:]}.")

    command("demo", "two models by two efforts on the embedded local server, compared; fetches their weights once")
    local = command("local", "serve the embedded local server until interrupted")
    local.add_argument("--file", metavar="YAML", help="agents, workflows and providers of your own")
    local.add_argument("--gguf", action="append", default=[], metavar="FILE", help="a model of your own; repeatable")
    local.add_argument("--port", type=int, default=0, help="a free one when omitted")
    command("doctor", "what is installed, configured and reachable, and what to do about the rest")
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        if options.command == "demo":
            from xpander_magics.demo import demo

            demo()
            return 0
        if options.command == "local":
            from xpander_magics.local.process import serve

            serve(port=options.port, agents_file=options.file, gguf=tuple(options.gguf))
            return 0
        from xpander_magics.doctor import doctor

        return 0 if doctor() else 1
    except XpanderError as error:
        print(plain(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
