"""The node's own checker of result objects: rules as data, one module for each kind of object."""
