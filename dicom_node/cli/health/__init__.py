"""What ``doctor`` looks at: the checks of each part of the node, and what a destination takes."""
