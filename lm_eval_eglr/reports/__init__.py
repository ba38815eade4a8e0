"""Tables and pages made of stores; needs neither torch nor lm_eval."""
