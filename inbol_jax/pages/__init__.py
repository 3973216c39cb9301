"""HTML pages, tables and the style of figures, shared by the audit, the report and the confidence plot."""
