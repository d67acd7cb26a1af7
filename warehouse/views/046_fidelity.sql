-- The divergence of each candidate's next-token distributions from its baseline's on a fixed text: an alarm and a
-- trend, never a gate. KL(baseline || candidate) per token, in nats; if coverage is top_k, it is a lower bound. Figures of
-- another text or k are never compared. Unknown figures are NULL, with null_reasons. A baseline with an A/A repeat (the
-- same text after a restart of its engine) has a row too: its noise, which its candidates show as kl_aa_mean_nats.
-- The previous run is the last earlier one of the same two checkpoints on the same text and architecture, on any engine
-- version; a run that reuses the distributions of an earlier one (`reused_from`) has none and is none. The thresholds of the alarms are in alarm_rules.
CREATE OR REPLACE VIEW fidelity AS
WITH rule AS (
    SELECT map_from_entries(list({'key': rule, 'value': threshold})) AS lines FROM alarm_rules
),
figures AS (
    SELECT
        r.run_id,
        coalesce(r.baseline_run_id, f.baseline_run_id) AS baseline_run_id,
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
        aa.kl_mean_nats AS kl_aa_mean_nats,
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
        lag(struct_pack(run_id := r.run_id, engine_version := r.engine_version, kl := f.kl_mean_nats)) OVER (
            PARTITION BY r.revision, r.baseline_revision, r.sm_arch, f.text_id, f.k, f.vocab_size,
                f.kl_mean_nats IS NULL, s.reused['fidelity'] IS NULL
            ORDER BY run_order(r.declared_order, r.started_at, r.run_id)
        ) AS earlier,
        nullif(s.manifest->>'$.fidelity.skipped', '') AS skipped,
        s.reused['fidelity'] AS reused_from,
        r.measured_at,
        r.latest
    FROM runs r
    JOIN store.runs s USING (run_id)
    LEFT JOIN store.fidelity_figures f USING (run_id)
    LEFT JOIN store.fidelity_figures aa
      ON aa.run_id = r.baseline_run_id
     AND aa.baseline_run_id = r.baseline_run_id
     AND (aa.text_id, aa.k) = (f.text_id, f.k)
    WHERE NOT r.is_baseline OR f.run_id IS NOT NULL
),
trend AS (
    SELECT *, CASE WHEN kl_mean_nats IS NOT NULL AND reused_from IS NULL THEN earlier END AS previous FROM figures
)
SELECT
    t.* EXCLUDE (reason, previous, earlier, skipped, reused_from, measured_at, latest),
    list_filter([
        CASE WHEN t.kl_mean_nats > rule.lines['kl_high'] THEN 'kl_high' END,
        CASE WHEN t.nan_tokens > rule.lines['nan_logprobs'] THEN 'nan_logprobs' END
    ], lambda alarm: alarm IS NOT NULL) AS alarms,
    previous.run_id AS previous_run_id,
    previous.engine_version AS previous_engine_version,
    previous.kl AS previous_kl_mean_nats,
    t.kl_mean_nats - previous.kl AS kl_mean_change_nats,
    map_from_entries(list_filter([
        why_null('kl_mean_nats', t.kl_mean_nats, t.reason),
        why_null('kl_median_nats', t.kl_median_nats, t.reason),
        why_null('kl_p99_nats', t.kl_p99_nats, t.reason),
        why_null('kl_p999_nats', t.kl_p999_nats, t.reason),
        why_null('kl_aa_mean_nats', t.kl_aa_mean_nats, 'no_aa'),
        why_null('top1_agreement', t.top1_agreement, t.reason),
        why_null('perplexity_baseline', t.perplexity_baseline, t.reason),
        why_null('perplexity', t.perplexity, t.reason),
        why_null('perplexity_ratio', t.perplexity_ratio, t.reason),
        why_null('previous_kl_mean_nats', previous.kl, CASE WHEN t.reused_from IS NULL THEN 'no_earlier_run' ELSE 'reused' END)
    ], lambda entry: entry IS NOT NULL)) AS null_reasons,
    t.skipped,
    t.reused_from,
    t.measured_at,
    t.latest
FROM trend t, rule
ORDER BY t.model, t.gpu, t.measured_at, t.run_id;
