"""Tables and files made from the warehouse, printed and published."""
