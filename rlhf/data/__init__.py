"""Data: records, the files they are read from, and what can be measured on Korean text."""
