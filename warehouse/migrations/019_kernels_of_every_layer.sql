-- A start whose log names no kernel of a quantized model has no kernel mode; until then it counted as emulated.
ALTER TABLE store.engine_starts ALTER COLUMN kernel_mode DROP NOT NULL;
ALTER TABLE store.engine_starts ADD COLUMN kv_cache_dtype VARCHAR;      -- as the engine reports it
UPDATE store.engine_starts SET kernel_mode = NULL WHERE kernel_mode = 'emulated' AND cardinality(kernels) = 0;
