"""The loop over steps and what it needs: optimiser, averages, checkpoints, history."""
