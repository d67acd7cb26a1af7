"""What is known: migrations, views, and the code that loads, judges, prices and publishes."""
