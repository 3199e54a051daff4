"""What takes the place of CloudStack's `imageserver` package; docs/operations.md says how to put it there."""
