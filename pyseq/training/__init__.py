"""Training: Lightning around the models, run folders, schedules."""
