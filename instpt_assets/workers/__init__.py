"""What runs in a child process: one thin module per heavy stage."""
