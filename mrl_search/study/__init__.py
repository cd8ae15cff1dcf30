"""Studies: many training runs from one definition, measured into records, and the tables and figures that records give."""
