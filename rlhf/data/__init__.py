"""Data: records, the files they are read from, their tokens, and measures of Korean text."""
