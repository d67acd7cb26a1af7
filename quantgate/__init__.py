"""The ground that all rooms stand on: the vocabulary, the bundles, the judge."""
