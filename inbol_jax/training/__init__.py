"""Training: a trainer with hooks, one pure step, and the stages IDK-IT and CA-DPO."""
