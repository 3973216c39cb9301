"""The training engine: one pure step, checkpoints that resume exactly, and the two stages IDK-IT
and CA-DPO.
"""
