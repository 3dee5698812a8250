"""Many runs compared: evaluates what is missing, and writes tables, plots and numbers that say how sure they are."""
