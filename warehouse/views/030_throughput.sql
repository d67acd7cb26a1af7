-- One row per run and operating point, with the engine that served it. A figure without any completed request is
-- NULL, whatever the tool wrote, and so are all figures of a point with one that can't be; such a point is quarantined.
-- `reused_from` is the run that measured the point, where an earlier one did. `latest`
-- leaves out the points of repeated and continued runs, and counts a point once that several runs hold.
CREATE OR REPLACE VIEW throughput_points AS
WITH reused AS (
    SELECT run_id, e.entry.key AS part, e.entry.value AS measured_by
    FROM store.runs, unnest(map_entries(reused)) AS e(entry)
),
last_reuse AS (
    SELECT u.measured_by, u.part, arg_max(u.run_id, run_order(r.declared_order, r.started_at, r.run_id)) AS run_id
    FROM reused u
    JOIN runs r USING (run_id)
    WHERE r.latest
    GROUP BY ALL
)
SELECT
    r.run_id,
    r.model,
    r.checkpoint,
    r.precision,
    r.gpu,
    r.gpu_count,
    r.sm_arch,
    r.mig_slice,
    p.engine_start_id,
    e.engine,
    e.engine_version,
    kernel_names(e.kernels) AS kernel,
    e.kernel_mode,
    e.kv_cache_tokens,
    r.workload,
    p.operating_point,
    p.concurrency,
    p.isl_tokens AS isl,
    p.osl_tokens AS osl,
    p.requests,
    p.completed,
    p.failed,
    p.warmup_requests,
    p.duration_s,
    p.input_tokens,
    p.output_tokens,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.requests_per_s END AS requests_per_s,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN nullif(p.output_tok_s, 0) END AS output_tok_s,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN nullif(p.total_tok_s, 0) END AS total_tok_s,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.ttft_mean_ms END AS ttft_mean_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.ttft_p50_ms END AS ttft_p50_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.ttft_p90_ms END AS ttft_p90_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.ttft_p99_ms END AS ttft_p99_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.tpot_mean_ms END AS tpot_mean_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.tpot_p50_ms END AS tpot_p50_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.tpot_p90_ms END AS tpot_p90_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.tpot_p99_ms END AS tpot_p99_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.itl_mean_ms END AS itl_mean_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.itl_p50_ms END AS itl_p50_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.itl_p90_ms END AS itl_p90_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.itl_p99_ms END AS itl_p99_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.e2el_mean_ms END AS e2el_mean_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.e2el_p50_ms END AS e2el_p50_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.e2el_p90_ms END AS e2el_p90_ms,
    CASE WHEN p.usable AND NOT is_impossible(r.validity_reasons) THEN p.e2el_p99_ms END AS e2el_p99_ms,
    p.prefix_cache_hit_tokens,
    p.client_cpu_share,
    p.seed,
    r.evidence,
    CASE WHEN len(p.codes) > 0 OR (r.evidence = 'measured' AND len(p.shortfalls) > 0) THEN 'quarantined' WHEN p.validity = 'valid' THEN r.validity ELSE p.validity END
        AS validity,
    list_distinct(list_concat(
        r.validity_reasons, p.validity_reasons, p.codes, CASE WHEN r.evidence = 'measured' THEN p.shortfalls END))
        AS validity_reasons,
    p.measured_at,
    u.measured_by AS reused_from,
    r.latest AND coalesce(l.run_id = p.run_id, true) AS latest
FROM (
    SELECT
        COLUMNS(lambda name: name NOT LIKE '%_ms'),
        nullif(COLUMNS('(.*_ms)$'), 'nan'::DOUBLE) AS '\1',
        codes_of([
            {'holds': concurrency < 1, 'code': 'impossible_concurrency'},
            {'holds': least(isl_tokens, osl_tokens, input_tokens, output_tokens, prefix_cache_hit_tokens) < 0
                OR greatest(input_tokens, output_tokens, prefix_cache_hit_tokens) > 1e15,
             'code': 'impossible_tokens'},
            {'holds': least(requests, completed, failed, warmup_requests) < 0
                OR completed::BIGINT + failed > requests,
             'code': 'impossible_requests'},
            {'holds': NOT is_amount(duration_s) OR (completed > 0 AND duration_s NOT BETWEEN 1e-9 AND 1e12),
             'code': 'impossible_duration'},
            {'holds': NOT list_bool_and(list_transform(
                [requests_per_s, output_tok_s, total_tok_s], lambda rate: rate = 0 OR rate BETWEEN 1e-9 AND 1e12)),
             'code': 'impossible_speed'},
            {'holds': list_has_any(list_transform([
                ttft_mean_ms, ttft_p50_ms, ttft_p90_ms, ttft_p99_ms, tpot_mean_ms, tpot_p50_ms, tpot_p90_ms,
                tpot_p99_ms, itl_mean_ms, itl_p50_ms, itl_p90_ms, itl_p99_ms, e2el_mean_ms, e2el_p50_ms, e2el_p90_ms,
                e2el_p99_ms], lambda ms: ms < 0 OR (ms > 1e12 AND NOT isnan(ms))), [true]),
             'code': 'impossible_latency'},
            {'holds': validity NOT IN ('valid', 'quarantined'), 'code': 'unknown_validity'}
        ]) AS codes,
        -- As tasks/throughput/bench.py does it since schema_version 5: requests have exactly the lengths that are asked.
        CASE WHEN len(codes) = 0 THEN codes_of([
            {'holds': falls_short(completed + failed, requests), 'code': 'fewer_requests'},
            {'holds': falls_short(input_tokens, completed::BIGINT * isl_tokens), 'code': 'fewer_input_tokens'},
            {'holds': falls_short(output_tokens, completed::BIGINT * osl_tokens), 'code': 'fewer_output_tokens'},
            {'holds': falls_short(duration_s * output_tok_s, output_tokens)
                OR falls_short(output_tokens, duration_s * output_tok_s), 'code': 'duration_mismatch'}
        ]) ELSE [] END AS shortfalls,
        completed > 0 AND len(codes) = 0 AS usable
    FROM store.load_points
) p
JOIN runs r USING (run_id)
LEFT JOIN store.engine_starts e ON e.run_id = p.run_id AND e.engine_start_id = p.engine_start_id
LEFT JOIN reused u ON u.run_id = p.run_id AND u.part = 'load ' || p.operating_point
LEFT JOIN last_reuse l
  ON l.measured_by = coalesce(u.measured_by, p.run_id) AND l.part = 'load ' || p.operating_point;

-- The cost of every measured point at the prices of an instant; it is NULL if the hardware has no price.
CREATE OR REPLACE MACRO cost_per_token_at(ts) AS TABLE
SELECT
    t.run_id,
    t.model,
    t.checkpoint,
    t.precision,
    t.kernel_mode,
    t.gpu,
    t.gpu_count,
    t.sm_arch,
    t.engine,
    t.engine_version,
    t.workload,
    t.isl,
    t.osl,
    t.operating_point,
    t.concurrency,
    t.output_tok_s,
    t.total_tok_s,
    p.provider,
    p.region,
    p.price_kind,
    p.usd_per_hour,
    p.price_as_of,
    p.price_source,
    p.price_note,
    usd_per_mtok(p.usd_per_hour, t.output_tok_s) AS usd_per_mtok_output,
    usd_per_mtok(p.usd_per_hour, t.total_tok_s) AS usd_per_mtok_total,
    t.evidence,
    t.validity,
    t.validity_reasons,
    t.measured_at,
    t.latest
FROM throughput_points t
LEFT JOIN run_prices_at(ts) p USING (run_id);

CREATE OR REPLACE VIEW cost_per_token AS SELECT * FROM cost_per_token_at(now());
