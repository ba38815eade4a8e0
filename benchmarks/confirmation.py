"""What other models' problems suggested, tested on fresh problems of the demo model. The plan came first.

    python examples/demo_model/fresh_task.py demo_fresh --count 4000 --seed 2 --out fresh
    eglr study demo --tasks demo_fresh --include-path fresh --out fresh/few --spans 0:1:2:4 --temperatures 0 \
        --samples 0:0.7x3
    eglr study demo --tasks demo_fresh --include-path fresh --out fresh/grid --spans 0:1:2:4 --limit 2000
    python benchmarks/confirmation.py fresh

PLAN below was committed before a problem of ``demo_fresh`` was decoded. It has six hypotheses, all of them
tested two-sided by McNemar's exact test and corrected together by Holm's method:

1. Span 1 alone at T = 0 (an eighth of the depth, as span 4 of 28 layers) solves more than plain greedy.
2. Of the four greedy spans 0, 1, 2, 4 the rollout with the highest mean log-probability (``best_of_n``) solves
   more than plain greedy.
3. The same solves more than the majority of four plain rollouts, one of them greedy: as many rollouts.
4. The entropy-weighted vote of the four greedy spans solves more than plain greedy.
5. The oracle of the 4 x 4 grid differs from that of 16 plain rollouts.
6. The majority of the grid differs from that of 16 plain rollouts.

Power, stated first: 400 validation problems (seed 1) were decoded to learn how often two strategies differ. The
shares of problems that only one of the two solves were 0.075, 0.058, 0.078 and 0.045 for the first four; the 200
problems of ``eglr demo`` say about 0.083 for the last two. At the level of Holm's first step, 0.05 / 6, and a
power of 0.8, 4000 problems show 1.5, 1.3, 1.5 and 1.2 points, and 2000 problems show 2.2.
"""
