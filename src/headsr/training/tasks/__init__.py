"""How each kind of model is trained: one file a kind, named by its recipe's class (headsr.recipes.models)."""
