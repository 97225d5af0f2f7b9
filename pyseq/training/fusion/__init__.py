"""Training of fusion models, alone and as ensembles."""
