"""What is printed and published from the warehouse."""
