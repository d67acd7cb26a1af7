"""The demo's model, tasks and checkpoints, and the seeded script that makes them."""
