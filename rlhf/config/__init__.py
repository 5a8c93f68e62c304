"""Configuration: what each stage accepts, and how YAML files and overrides become it.

May import: errors.
"""
