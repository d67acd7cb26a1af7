"""The shared vocabulary: enumerations, typed records, table schemas, configuration files, errors."""
