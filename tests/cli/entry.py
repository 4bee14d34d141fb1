"""`finetune` as a shell starts it in the foreground: it receives Ctrl-C.

Under a shell's `&` the tests inherit an ignored SIGINT, and so would the program.
"""

import sys

ENTRY = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from finetune_cli.main import main; main()"
)
PROGRAM = (sys.executable, "-u", "-c", ENTRY)
