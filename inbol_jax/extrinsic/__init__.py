"""Questions beyond the extrinsic boundary: the image does not hold what they ask for (Type 3)."""
