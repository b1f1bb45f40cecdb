"""Import, export and merge: stores and stages that come from elsewhere, or go there."""
