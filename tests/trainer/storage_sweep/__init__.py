"""Kills the trainer and the prepare Job before and after each of their writes to S3.

Each pod is a real process with a proxy of its own in front of S3. The proxy names every write, and
kills the process with SIGKILL at the chosen one. The next attempt then starts as the operator would
start it, and the results must be those of an undisturbed run, with nothing left behind.
"""
