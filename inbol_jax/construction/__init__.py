"""From sampled confidences to boundary records, IDK instructions and preference pairs."""
