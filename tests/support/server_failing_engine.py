"""``hope-serve`` with the arguments given, in a process whose engine fails at SIGUSR1 and hangs at SIGUSR2."""

import signal
import sys

from hope_serve.config import calm_threads

if __name__ == "__main__":
    calm_threads()
    from support.faults import end_engine_thread, stick_engine_thread

    from hope_serve.cli import main

    signal.signal(signal.SIGUSR1, lambda *_: end_engine_thread())
    signal.signal(signal.SIGUSR2, lambda *_: stick_engine_thread())
    main(sys.argv[1:])
