"""The `minilm` command before anything is loaded; minilm/cli.py is the command itself.

It lies beside the package, since importing anything inside loads NumPy first, and a Ctrl-C meanwhile
would end in a traceback.
"""

import signal


def main() -> None:
    """Load the command and run it."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as under nohup
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until then the system ends the process, without a word
    from minilm.cli import main as run

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
