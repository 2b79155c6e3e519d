"""Network families that several architectures are members of; the registry does not list these."""
