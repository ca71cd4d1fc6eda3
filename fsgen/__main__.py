"`fsgen`, `python -m fsgen` and `accelerate launch -m fsgen`: the command line with all of its commands."

import os
import sys
from importlib.metadata import entry_points

# What `fsgen --help` says, so that it need not wait for torch; a test compares it with the commands.
ABOUT = """Few-shot autoregressive density estimation.
`fsgen COMMAND --help` explains a command, `fsgen train --help` lists the experiments.
`--import MODULE` first imports your module that registers models, tasks, data sets.
"""
COMMANDS = {
    "demo": "Train small models on glyphs, in minutes: flips and letters.",
    "train": "Train an experiment, or go on where it was stopped.",
    "evaluate": "Nats/dim of trained runs, each compared with the first.",
    "sample": "Draw samples of trained runs side by side.",
    "score": "Nats of an image of yours given others.",
    "data": "Say which data sets are there and how to get others.",
    "reproduce": "Train, measure and compare all rows of a table; run again, it goes on where it was stopped.",
    "bench": "Speed of sampling and training on this machine.",
}


def show_help():
    "The help as `fsgen.cli` would show it."
    import tyro

    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of ASCII has no bullets
    app = tyro.extras.SubcommandApp()
    for name, about in COMMANDS.items():
        app.command(lambda: None, name=name, help=about)
    try:
        try:
            app.cli(prog="fsgen", description=ABOUT, args=["--help"])
        finally:
            sys.stdout.flush()
    except OSError as error:  # the reader has left, as in `fsgen --help | head -1`, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0 if isinstance(error, BrokenPipeError) else f"fsgen: {error}")


def main():
    "Run the command line; an installed package may register commands of its own, and is asked first."
    asked = set(sys.argv[1:]) <= {"-h", "--help"} and sys.stdout is not None
    if asked and not entry_points(group="fsgen"):
        show_help()
    try:
        import fsgen.bench  # noqa: F401  registers the command bench
        from fsgen.cli import main
    except KeyboardInterrupt:  # torch takes seconds to import
        print("fsgen: Stopped.", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    main()
