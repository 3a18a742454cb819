"""What each kind of model is trained on and for: one file a kind, named by its recipe's class (headsr.recipes.models)."""
