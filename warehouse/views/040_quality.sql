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
    v.quality_delta_corrected,
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

