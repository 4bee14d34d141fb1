"""Work on hostile files in a process of its own, with limits of time and memory.

A template, a tokenizer, a configuration, or a data file can loop, recurse, or allocate without
end, also in native code, where Python can neither interrupt it nor catch its error. So a forked
process does the work (`child`), marks what it works on in shared memory (`sections`), and its
parent watches it (`watch`). If a section exceeds a limit, the parent kills the process and knows
the sentence.
"""
