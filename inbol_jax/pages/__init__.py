"""HTML pages, tables and the style of figures, for audit, report and confidence plot."""
