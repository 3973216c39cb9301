"""Training: one pure step, one loop, and the stages IDK-IT, CA-DPO and on-policy refusal."""
