"""What goes wrong on purpose: each kind of fault in a module of its own."""
