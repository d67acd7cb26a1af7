-- USD per 1M tokens = USD/h / (tokens/s * 3600) * 1,000,000 (the guide's formula). NULL if no token came.
CREATE OR REPLACE MACRO usd_per_mtok(usd_per_hour, tok_s) AS
    usd_per_hour / (nullif(tok_s, 0) * 3600) * 1000000;

-- The worst of several kernel modes: emulated < weight_only < native; NULL if one that could be worse is unknown.
CREATE OR REPLACE MACRO worst_kernel_mode(modes) AS
    CASE WHEN list_contains(modes, 'emulated') OR len(list_filter(modes, lambda mode: mode IS NULL)) = 0 THEN
        (['emulated', 'weight_only', 'native'])[
            list_min(list_transform(modes, lambda mode: list_position(['emulated', 'weight_only', 'native'], mode)))]
    END;

-- Kernel names of a map from layer type to kernel, each once; NULL if the engine named none.
CREATE OR REPLACE MACRO kernel_names(kernels) AS
    nullif(array_to_string(list_sort(list_distinct(flatten(
        list_transform(map_values(kernels), lambda names: string_split(names, ', '))))), ', '), '');

-- The instant at which a calendar day begins (UTC), whatever the session's time zone.
CREATE OR REPLACE MACRO day_start(day) AS day::TIMESTAMP AT TIME ZONE 'UTC';

-- True if something of that age is stale at an instant.
CREATE OR REPLACE MACRO is_stale(since, stale_after_days, ts) AS
    since + to_days(stale_after_days) < ts::TIMESTAMPTZ;

-- A column's entry of null_reasons; NULL if the column has a value.
CREATE OR REPLACE MACRO why_null(name, value, code) AS
    CASE WHEN value IS NULL THEN {'key': name, 'value': code} END;

-- What a use is known by: its families, whatever it is called; `all` is every family that a run declared.
CREATE OR REPLACE MACRO use_key(use, families) AS
    CASE WHEN len(families) = 0 THEN 'all' ELSE array_to_string(list_sort(families), '+') END;

-- True if a number can be a duration, a size or a rate.
CREATE OR REPLACE MACRO is_amount(value) AS isfinite(value::DOUBLE) AND value >= 0;

-- True if a figure is more than 1 % below what it must be.
CREATE OR REPLACE MACRO falls_short(measured, asked) AS measured < 0.99 * asked;

-- The codes of what can't be, of [condition, code] pairs that a view lists.
CREATE OR REPLACE MACRO codes_of(pairs) AS
    list_transform(list_filter(pairs, lambda pair: pair.holds), lambda pair: pair.code);

-- True if a measurement has a figure that can't be, so that nothing is computed from any of them.
CREATE OR REPLACE MACRO is_impossible(reasons) AS list_has_any(reasons, [
    'impossible_concurrency', 'impossible_tokens', 'impossible_requests', 'impossible_duration', 'impossible_speed',
    'impossible_latency', 'impossible_size', 'impossible_score', 'unknown_validity']);

-- The precision that weights are served in: quantgate/model/served.py, served_precision; a test compares the two.
CREATE OR REPLACE MACRO served_precision(stored, dtype) AS
    CASE WHEN stored NOT IN ('bf16', 'fp16', 'fp32') THEN stored
        ELSE coalesce(
            MAP {'half': 'fp16', 'float16': 'fp16', 'bfloat16': 'bf16', 'float': 'fp32', 'float32': 'fp32'}[dtype],
            CASE stored WHEN 'fp32' THEN 'bf16' ELSE stored END) END;
