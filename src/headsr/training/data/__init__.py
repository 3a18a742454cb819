"""What trainings see: one file for every kind of data, named by its recipe's class (headsr.recipes.models)."""
