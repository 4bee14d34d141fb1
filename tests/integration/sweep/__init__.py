"""The crash sweep: every lifecycle of a FineTune, with a crash of the operator at every write.

- `api`: a client of the API server for users and pods, which costs less than kubectl
- `forked`: operator processes that start in a fraction of a second
- `life`: a FineTune in its own namespace, and what its user, its pods, and its queue do
- `lifecycles`: the scripts, from success to the preemption by a queue
- `cells`: one life with one fault, and the comparison with an undisturbed life
- `sweep`: many cells in parallel, and their result file

`make sweep` runs all cells. The tests run most of those of the success, and a fortieth of the
others.
"""
