"""The command line: parse, call one function, print, set the exit status."""
