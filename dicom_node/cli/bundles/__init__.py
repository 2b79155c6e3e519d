"""What the ``model`` commands do with bundles: add, compare, promote, recall, and watch for drift."""
