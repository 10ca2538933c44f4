"""Speed, side by side in one run: the tutorial's loop, its peers, and the same fits by polyfit.

Run by ``make bench``; ``--quick`` for a short look, ``--only`` for some sections, ``--long`` for
the run of 10^8 fits too. Prints tables, and writes every number to ``.local/bench.json``.

Each contender is a process of its own, pinned to one core before it imports anything. All of a
table warm up first. Then they take turns, round by round, so that other load on the machine meets
all of them. A rate is the median of the rounds; `spread` is the distance between the fastest and
the slowest round. `all cores` is one pinned process per core, all at once. `off by` is the largest
difference of the first fit's coefficients to those of the tutorial's loop: it shows that the same
work was done. Ratios are of numbers of one run; of contenders that take turns, the median of
the rounds' ratios. Machine code is made before the rounds; the section `kernels` times it.

Peers are timed from start values in memory to coefficients in memory. Ours is timed as users run
it: start values, problems, iteration, evaluation and Arrow rows. Rows that end in "iteration only"
time the iteration alone, as for the peers.
"""
