"""The `finetune` command, also installed as `kubectl finetune`.

The rules of this package: a command parses its arguments, calls a library of another package, and
prints the result; it makes no decisions of its own. A terminal gets colors, tables, progress, and
questions with a default; a pipe gets plain lines and no questions. Output for programs goes to
stdout, progress and errors to stderr. Commands are imported when they are called, so `--help`
appears at once; importing the Kubernetes client takes half a second. An error is a sentence and the
next step (terminal/errors.py), never a traceback. Exit codes: 0 done, 1 error, 2 invalid command
line or manifest, 3 the FineTune failed or was cancelled, 65 invalid data, 130 Ctrl-C.
"""
