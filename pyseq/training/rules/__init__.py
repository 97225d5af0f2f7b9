"""Training on the words of formal grammars, several seeds as one stacked model."""
