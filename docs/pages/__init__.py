"""Write the generated pages of docs/ from the configuration."""
