"""What lm_eval sees: the model class, tasks, filters and the hooks that register them."""
