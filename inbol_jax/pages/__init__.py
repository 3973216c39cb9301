"""HTML pages, tables and the style of figures, for audit and report."""
