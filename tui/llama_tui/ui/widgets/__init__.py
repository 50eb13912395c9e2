"""What stands on the screens. Widgets hold view state only."""
