-- Where a divergence becomes an alarm. It is never a gate.
CREATE OR REPLACE VIEW store.fidelity_limits AS
SELECT * FROM (VALUES (
    'kl_high',
    0.05,
    'mean divergence per token from the baseline, nats',
    'llama.cpp, tools/perplexity/README.md, "LLaMA 3 8b Scoreboard": the 4-bit formats in wide use lie at 0.028 to 0.043 '
    'nats (perplexity up 2 to 4 %), the 4-bit ones they replaced at 0.072 (up 7 %), 3-bit ones at 0.073 and more'
)) AS limits(alarm, above, what, source);

-- How far each candidate's next-token distributions lie from its baseline's on a fixed text: an alarm and a trend, never
-- a gate. KL(baseline || candidate) per token, in nats; where coverage is top_k it is a lower bound, and figures of another
-- text or k are never compared. What isn't known is NULL, and null_reasons says why. The previous run is the last one before
-- it of the same two checkpoints on the same text and architecture, whatever its engine's version.
CREATE OR REPLACE VIEW fidelity AS
WITH figures AS (
    SELECT
        r.run_id,
        r.baseline_run_id,
        r.model,
        r.checkpoint,
        r.precision,
        r.gpu,
        r.engine_version,
        f.text_id AS text,
        f.tokens,
        f.k,
        f.vocab_size,
        CASE WHEN f.k = f.vocab_size THEN 'whole' WHEN f.k IS NOT NULL THEN 'top_k' END AS coverage,
        f.kl_mean_nats,
        f.kl_median_nats,
        f.kl_p99_nats,
        f.kl_p999_nats,
        f.top1_agreement,
        f.perplexity_baseline,
        f.perplexity,
        f.perplexity / f.perplexity_baseline AS perplexity_ratio,
        f.nan_tokens,
        CASE
            WHEN f.run_id IS NOT NULL THEN f.reason
            WHEN EXISTS (SELECT 1 FROM store.fidelity t WHERE t.run_id = r.run_id) THEN 'baseline_not_loaded'
            ELSE 'not_measured'
        END AS reason,
        lag(struct_pack(run_id := r.run_id, engine_version := r.engine_version, kl_mean_nats := f.kl_mean_nats)) OVER (
            PARTITION BY r.revision, r.baseline_revision, r.sm_arch, f.text_id, f.k, f.vocab_size,
                f.kl_mean_nats IS NULL
            ORDER BY r.started_at, r.run_id
        ) AS previous,
        nullif(json_extract_string(s.manifest, '$.fidelity.skipped'), '') AS skipped,
        r.measured_at,
        r.latest
    FROM runs r
    JOIN store.runs s USING (run_id)
    LEFT JOIN store.fidelity_figures f USING (run_id)
    WHERE NOT r.is_baseline
)
SELECT
    f.* EXCLUDE (reason, previous, skipped, measured_at, latest),
    list_filter([
        CASE WHEN f.kl_mean_nats > l.above THEN l.alarm END,
        CASE WHEN f.nan_tokens > 0 THEN 'nan_logprobs' END
    ], lambda alarm: alarm IS NOT NULL) AS alarms,
    CASE WHEN f.kl_mean_nats IS NOT NULL THEN previous.run_id END AS previous_run_id,
    CASE WHEN f.kl_mean_nats IS NOT NULL THEN previous.engine_version END AS previous_engine_version,
    CASE WHEN f.kl_mean_nats IS NOT NULL THEN previous.kl_mean_nats END AS previous_kl_mean_nats,
    f.kl_mean_nats - previous.kl_mean_nats AS kl_mean_change_nats,
    map_from_entries(list_filter([
        why_null('kl_mean_nats', f.kl_mean_nats, f.reason),
        why_null('kl_median_nats', f.kl_median_nats, f.reason),
        why_null('kl_p99_nats', f.kl_p99_nats, f.reason),
        why_null('kl_p999_nats', f.kl_p999_nats, f.reason),
        why_null('top1_agreement', f.top1_agreement, f.reason),
        why_null('perplexity_baseline', f.perplexity_baseline, f.reason),
        why_null('perplexity', f.perplexity, f.reason),
        why_null('perplexity_ratio', f.perplexity_ratio, f.reason),
        why_null('previous_kl_mean_nats', previous.kl_mean_nats, 'no_earlier_run')
    ], lambda entry: entry IS NOT NULL)) AS null_reasons,
    f.skipped,
    f.measured_at,
    f.latest
FROM figures f, store.fidelity_limits l
WHERE l.alarm = 'kl_high'
ORDER BY f.model, f.gpu, f.measured_at, f.run_id;
