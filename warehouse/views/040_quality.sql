-- Every sample with the run it belongs to; the prompt's text lies once per prompt_hash. `latest` leaves out the answers
-- of repeated and continued runs, which would be counted twice.
CREATE OR REPLACE VIEW samples AS
SELECT
    r.run_id,
    r.model,
    r.checkpoint,
    r.precision,
    r.gpu,
    r.sm_arch,
    r.engine_version,
    s.* EXCLUDE (run_id),
    p.text AS prompt,
    l.latest
FROM store.samples s
JOIN store.runs r USING (run_id)
JOIN store.latest_answers l USING (run_id)
LEFT JOIN store.prompts p USING (prompt_hash);

-- Documents whose score the candidate changed, paired with the declared baseline's own sample. `latest` leaves out the
-- flips of repeated and continued runs, which would be counted twice.
CREATE OR REPLACE VIEW flips AS
SELECT
    r.run_id,
    r.baseline_run_id,
    r.model,
    r.checkpoint,
    r.precision,
    r.sm_arch,
    c.task,
    c.family,
    c.filter,
    c.metric,
    c.doc_id,
    c.doc_repeat,
    CASE WHEN c.score < b.score THEN 'worse' ELSE 'better' END AS direction,
    b.score AS baseline_score,
    c.score AS candidate_score,
    c.target,
    b.answer AS baseline_answer,
    c.answer AS candidate_answer,
    b.responses AS baseline_responses,
    c.responses AS candidate_responses,
    b.finish_reason AS baseline_finish_reason,
    c.finish_reason AS candidate_finish_reason,
    b.output_tokens AS baseline_output_tokens,
    c.output_tokens AS candidate_output_tokens,
    p.text AS prompt,
    l.latest
FROM store.samples c
JOIN store.runs r USING (run_id)
JOIN store.latest_answers l USING (run_id)
JOIN store.samples b
  ON b.run_id = r.baseline_run_id
 AND b.task = c.task
 AND b.filter = c.filter
 AND b.metric = c.metric
 AND b.doc_id = c.doc_id
 AND b.doc_repeat = c.doc_repeat
 AND b.doc_hash = c.doc_hash
 AND b.prompt_hash = c.prompt_hash
 AND b.target_hash = c.target_hash
LEFT JOIN store.prompts p ON p.prompt_hash = c.prompt_hash
WHERE c.score <> b.score;

-- The judge's word on each task of a candidate, for each use that requires it; `declared` says whether the policy is
-- the one that the run declared or another, taken up after the samples were there (post_hoc).
CREATE OR REPLACE VIEW quality_delta AS
WITH every_task AS (
    SELECT *, 'declared' AS declared FROM store.task_verdicts
    UNION ALL BY NAME
    SELECT *, 'post_hoc' AS declared FROM store.post_hoc_task_verdicts
)
SELECT
    r.run_id,
    v.baseline_run_id,
    r.model,
    r.checkpoint,
    r.baseline,
    r.precision,
    r.gpu,
    r.sm_arch,
    r.kernel_mode,
    r.engine_version,
    v.use,
    v.policy,
    v.policy_fingerprint,
    v.declared,
    v.task,
    v.family,
    v.margin,
    v.pairs,
    v.baseline_score,
    v.candidate_score,
    v.quality_delta,
    v.ci_low AS quality_delta_ci_low,
    v.ci_high AS quality_delta_ci_high,
    v.worse,
    v.better,
    v.flip_rate,
    v.p_noninferior,
    v.p_inferior,
    v.p_inferior_holm,
    v.p_degraded,
    v.degraded,
    v.outcome,
    v.test,
    v.documents_needed,
    v.documents_available,
    v.looks,
    v.clusters,
    v.largest_cluster,
    v.reason,
    r.measured_at,
    r.latest
FROM every_task v
JOIN runs r USING (run_id);

-- One row per run, policy and use of the policy; `declared` tells the policy that the run declared from one that it was
-- judged under afterwards (post_hoc), which decides nothing: validated_table shows declared verdicts only. `decided_by` is the run whose verdict stands for this run's
-- verdict_key: of the first that was declared and those that continue it the first that is VALIDATED or REJECTED for
-- the use, which others may go on after, or else the last; a later repeat is a drift check, and its own verdict stays
-- readable here. A post-hoc verdict is nobody's but its run's.
CREATE OR REPLACE VIEW verdicts AS
WITH RECURSIVE chain AS (
    SELECT r.run_id, r.run_id AS root, 0 AS step
    FROM store.runs r
    WHERE r.continues IS NULL OR r.continues NOT IN (SELECT run_id FROM store.runs)
    UNION ALL
    SELECT r.run_id, c.root, c.step + 1
    FROM store.runs r
    JOIN chain c ON r.continues = c.run_id
),
uses AS (
    SELECT r.run_id, u.use
    FROM store.runs r
    JOIN store.policies p USING (policy, policy_fingerprint),
    unnest(map_keys(p.uses)) AS u(use)
),
own AS (
    SELECT
        r.run_id,
        u.use,
        root.verdict_key,
        run_order(root.declared_order, root.started_at, root.run_id) AS root_order,
        c.step,
        run_order(r.declared_order, r.started_at, r.run_id) AS own_order,
        CASE
            WHEN r.is_baseline THEN 'BASELINE'
            WHEN r.tasks = 0 THEN 'UNVALIDATED'
            ELSE coalesce(v.verdict, 'NOT_COMPARABLE')
        END AS verdict,
        CASE
            WHEN r.is_baseline THEN ''
            WHEN r.tasks = 0 THEN 'no quality was measured'
            WHEN v.run_id IS NULL THEN 'the baseline''s run ' || r.baseline_run_id || ' was not judged against'
            ELSE v.reason
        END AS reason,
        v.worst_task,
        v.quality_delta,
        v.ci_low,
        v.ci_high,
        v.flip_rate,
        v.degraded,
        v.documents_needed,
        r.validity = 'valid' AND coalesce(v.verdict IN ('VALIDATED', 'REJECTED', 'INCONCLUSIVE'), false) AS decides
    FROM runs r
    JOIN uses u USING (run_id)
    JOIN chain c USING (run_id)
    JOIN store.runs root ON root.run_id = c.root
    LEFT JOIN store.verdicts v ON v.run_id = r.run_id AND v.use = u.use
),
deciders AS (
    SELECT verdict_key, use, run_id
    FROM own
    WHERE decides
    QUALIFY row_number() OVER (
        PARTITION BY verdict_key, use
        ORDER BY
            root_order, verdict = 'INCONCLUSIVE', CASE WHEN verdict = 'INCONCLUSIVE' THEN -step ELSE step END, own_order
    ) = 1
),
every_verdict AS (
    SELECT
        o.run_id, o.use, r.policy, r.policy_fingerprint, 'declared' AS declared, o.verdict, o.reason, o.worst_task,
        o.quality_delta, o.ci_low, o.ci_high, o.flip_rate, o.degraded, o.documents_needed,
        CASE WHEN r.is_baseline OR r.tasks = 0 THEN o.run_id ELSE coalesce(d.run_id, o.run_id) END AS decided_by,
        r.verdict_key
    FROM own o
    JOIN runs r USING (run_id)
    LEFT JOIN deciders d ON d.verdict_key = o.verdict_key AND d.use = o.use
    UNION ALL BY NAME
    SELECT * EXCLUDE (baseline_run_id), 'post_hoc' AS declared, run_id AS decided_by
    FROM store.post_hoc_verdicts
)
SELECT
    r.run_id,
    r.baseline_run_id,
    r.model,
    r.checkpoint,
    r.revision,
    r.baseline,
    r.baseline_revision,
    r.precision,
    r.gpu,
    r.gpu_count,
    r.sm_arch,
    r.kernel,
    r.kernel_mode,
    r.kv_cache_dtype,
    r.engine,
    r.engine_version,
    r.suite,
    r.documents,
    v.use,
    v.policy,
    v.policy_fingerprint,
    v.declared,
    v.verdict,
    v.reason,
    v.worst_task,
    v.quality_delta,
    v.ci_low AS quality_delta_ci_low,
    v.ci_high AS quality_delta_ci_high,
    v.flip_rate,
    v.degraded,
    v.documents_needed,
    v.decided_by,
    v.verdict_key,
    r.evidence,
    r.validity,
    r.measured_at,
    r.latest
FROM every_verdict v
JOIN runs r USING (run_id)
ORDER BY r.model, NOT r.is_baseline, run_order(r.declared_order, r.started_at, r.run_id), v.declared, v.policy, v.policy_fingerprint,
    v.use <> 'all', v.use;
