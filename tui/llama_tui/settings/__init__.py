"""Parameters and settings: one table, its layers, its files."""
