"""What a person types: `finetune ...`, which `kubectl finetune ...` is too.

The rules of this room: a command parses, calls a library of another room and shows what came
back; it decides nothing itself. A terminal gets colors, tables, progress and questions with a
default; a pipe gets plain lines and no questions. What a program may want to read goes to stdout,
progress and complaints to stderr. Commands are imported when they are called, so `--help` is
there at once; the Kubernetes client takes half a second. An error is a sentence and the next step
(complaints.py), never a traceback. Exit codes: 0 done, 1 error, 2 a wrong command line or manifest,
3 the FineTune failed or was cancelled, 65 wrong data, 130 Ctrl-C.
"""
