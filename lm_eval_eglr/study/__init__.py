"""A replication: a grid beside as many plain rollouts, its tables and verdict, and the run itself."""
