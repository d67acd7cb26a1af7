-- Each run's own verdict for each use of its policy, with the chain of runs that it belongs to: the run that began it
-- (root), which continues none, and how many steps after it (step).
CREATE OR REPLACE VIEW store.own_verdicts AS
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
    SELECT r.run_id, u.use, use_key(u.use, p.uses[u.use]) AS use_key
    FROM store.runs r
    JOIN store.policies p USING (policy, policy_fingerprint),
    unnest(map_keys(p.uses)) AS u(use)
)
SELECT
    r.run_id,
    u.use,
    u.use_key,
    c.root,
    c.step,
    root.verdict_key,
    coalesce(root.claim_key, root.verdict_key) AS claim_key,
    root.candidate_key,
    root.policy_fingerprint AS root_policy,
    root.question AS root_question,
    root.baseline,
    root.baseline_weights,
    root.schema_version < 4 AS earlier_version,
    run_order(root.declared_order, root.started_at, root.run_id) AS root_order,
    run_order(r.declared_order, r.started_at, r.run_id) AS own_order,
    root.started_at AS declared_at,
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
    s.counts_as_try,
    r.documents,
    r.validity = 'valid' AND coalesce(v.verdict IN ('VALIDATED', 'REJECTED', 'INCONCLUSIVE'), false) AS decides
FROM main.runs r
JOIN store.runs s USING (run_id)
JOIN uses u USING (run_id)
JOIN chain c USING (run_id)
JOIN store.runs root ON root.run_id = c.root
LEFT JOIN store.verdicts v ON v.run_id = r.run_id AND v.use = u.use;

-- The run that answers a question for a use: of the chain that was declared first, and that decides, the first run that
-- is VALIDATED or REJECTED, or else the last.
CREATE OR REPLACE VIEW store.deciders AS
SELECT verdict_key, use_key, run_id, root, root_order, verdict, reason
FROM store.own_verdicts
WHERE decides
QUALIFY row_number() OVER (
    PARTITION BY verdict_key, use_key
    ORDER BY
        root_order, verdict = 'INCONCLUSIVE', CASE WHEN verdict = 'INCONCLUSIVE' THEN -step ELSE step END, own_order
) = 1;

-- Every try at a claim: a chain of runs, or a run that was declared and killed before it had a bundle. `counts` is false
-- of one that scored too few answers to decide anything.
CREATE OR REPLACE VIEW store.single_tries AS
SELECT
    claim_key, candidate_key, verdict_key AS question_key, use, use_key, root AS run_id, root_order, baseline,
    baseline_weights,
    min(declared_at) AS declared_at, bool_or(counts_as_try) AS counts, max(documents) AS documents, true AS finished,
    first(root_policy) AS policy_fingerprint, first(root_question) AS question, first(earlier_version) AS earlier_version
FROM store.own_verdicts
WHERE verdict NOT IN ('BASELINE', 'UNVALIDATED')
GROUP BY ALL
UNION ALL BY NAME
SELECT
    d.claim_key, d.candidate_key, d.question_key, d.baseline, d.baseline_weights, e.entry.key AS use,
    use_key(e.entry.key, e.entry.value) AS use_key, d.run_id,
    run_order(d.declared_order, d.declared_at, d.run_id) AS root_order, d.declared_at, d.scored AS counts,
    0 AS documents, false AS finished, d.policy_fingerprint, NULL AS question, false AS earlier_version
FROM store.declarations d, unnest(map_entries(d.uses)) AS e(entry)
WHERE d.run_id NOT IN (SELECT run_id FROM store.runs)
  AND (d.continues IS NULL OR d.continues NOT IN (SELECT run_id FROM store.runs))
  AND (len(e.entry.value) = 0 OR list_has_any(e.entry.value, d.families));

-- The same, with what small tries show together: before the first question that counts, the one that brings the answers
-- to different questions to 100 counts too. Else whoever asks parts of a task, one after another, sees it all for nothing.
CREATE OR REPLACE VIEW store.tries AS
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY claim_key, use_key, question_key ORDER BY root_order) AS repetition
    FROM store.single_tries
),
seen AS (
    SELECT
        *,
        sum(documents) FILTER (NOT counts AND repetition = 1) OVER so_far AS documents_seen,
        bool_or(counts) OVER so_far AS counted
    FROM numbered
    WINDOW so_far AS (PARTITION BY claim_key, use_key ORDER BY root_order)
)
SELECT * EXCLUDE (counts, documents, repetition, documents_seen, counted),
    counts OR (NOT counted AND coalesce(documents_seen >= 100, false)) AS counts
FROM seen;

-- The questions of each claim and use, the first declared first; what was scored too little for any decision is none.
-- Nothing can go on from a run of an earlier version, whose documents had another order: where it decided nothing, it
-- doesn't hold a claim that was asked about since.
CREATE OR REPLACE VIEW store.claim_questions AS
WITH asked AS (
    SELECT
        claim_key, use_key, question_key, min(root_order) AS first_order, arg_min(run_id, root_order) AS run_id,
        arg_min(policy_fingerprint, root_order) AS policy_fingerprint, arg_min(question, root_order) AS declared_number,
        min(declared_at) AS declared_at, count(*) AS tries, arg_min(finished, root_order) AS finished,
        arg_min(earlier_version, root_order) AS earlier_version, arg_min(baseline, root_order) AS baseline, arg_min(baseline_weights, root_order) AS baseline_weights
    FROM store.tries
    WHERE counts
    GROUP BY ALL
),
answered AS (
    SELECT
        a.*,
        bool_and(a.earlier_version) OVER (PARTITION BY a.claim_key, a.use_key) AS all_earlier,
        -- A try that nobody finished holds its question: a later run of it would be a second draw.
        CASE WHEN a.finished OR d.root_order < a.first_order THEN coalesce(d.verdict, 'NOT_COMPARABLE') ELSE 'INCONCLUSIVE' END
            AS verdict,
        CASE WHEN a.finished OR d.root_order < a.first_order THEN d.run_id END AS decided_by,
        CASE
            WHEN NOT (a.finished OR coalesce(d.root_order < a.first_order, false))
                THEN 'run ' || a.run_id || ' was declared first and never finished; finish it where it was begun'
            ELSE d.reason
        END AS reason
    FROM asked a
    LEFT JOIN store.deciders d ON d.verdict_key = a.question_key AND d.use_key = a.use_key
)
SELECT *, row_number() OVER (PARTITION BY claim_key, use_key ORDER BY first_order) AS number
FROM answered
WHERE all_earlier OR NOT earlier_version OR verdict IN ('VALIDATED', 'REJECTED');

-- The verdict that stands for each claim and use: every question must pass, and the first one alone can make it pass; a
-- later one only from alpha that the first one's policy has kept for it (`reserve`), and only against the same baseline.
-- docs/decisions/0016-one-standing-verdict-a-claim.md has the proof.
CREATE OR REPLACE VIEW store.standing AS
WITH numbered AS (
    SELECT
        q.*,
        count(*) OVER of_claim AS questions,
        number = 1 OR (
            declared_number >= number
            AND q.policy_fingerprint = first_value(q.policy_fingerprint) OVER in_order
            AND first_value(coalesce(p.reserve, 0)) OVER in_order > 0
            AND q.baseline_weights IS NOT DISTINCT FROM first_value(q.baseline_weights) OVER in_order
        ) AS may_validate
    FROM store.claim_questions q
    LEFT JOIN (SELECT DISTINCT policy_fingerprint, reserve FROM store.policies) p USING (policy_fingerprint)
    WINDOW
        of_claim AS (PARTITION BY claim_key, use_key),
        in_order AS (PARTITION BY claim_key, use_key ORDER BY number)
),
answered AS (
    SELECT
        *,
        min(number) FILTER (verdict = 'VALIDATED' AND may_validate) OVER (PARTITION BY claim_key, use_key) AS validating
    FROM numbered
)
SELECT
    claim_key,
    use_key,
    verdict,
    decided_by,
    run_id,
    number,
    baseline,
    baseline_weights,
    CASE
        WHEN verdict <> 'INCONCLUSIVE' OR validating IS NULL THEN reason
        ELSE format('a later question of the same claim is not passed (run {}): {}', run_id, reason)
    END AS reason
FROM answered
QUALIFY row_number() OVER (
    PARTITION BY claim_key, use_key
    ORDER BY
        CASE
            WHEN verdict = 'REJECTED' THEN 0
            WHEN validating IS NULL AND number = 1 THEN 1
            WHEN verdict = 'INCONCLUSIVE' AND number > validating THEN 2
            WHEN number = validating THEN 3
            ELSE 4
        END,
        number
) = 1;

-- The ledger: every question that was asked about a claim, use by use, with what it was answered and what stands.
-- `tries` are the runs that asked it, continued ones not counted; a try that was killed is `unfinished`.
CREATE OR REPLACE VIEW questions AS
WITH described AS (
    SELECT run_id, checkpoint, baseline, sm_arch, engine, engine_version, suite, policy, policy_fingerprint
    FROM store.runs
    UNION ALL BY NAME
    SELECT DISTINCT ON (run_id)
        run_id, checkpoint, baseline, sm_arch, engine, engine_version, suite, policy, policy_fingerprint
    FROM store.declarations
    WHERE run_id NOT IN (SELECT run_id FROM store.runs)
)
SELECT
    t.claim_key,
    t.use,
    q.number AS question,
    t.question_key,
    t.run_id,
    d.checkpoint,
    d.baseline,
    d.sm_arch,
    d.engine,
    d.engine_version,
    d.suite,
    d.policy,
    d.policy_fingerprint,
    t.declared_at,
    CASE WHEN NOT t.finished THEN 'unfinished' WHEN NOT t.counts THEN 'too few documents'
        WHEN t.run_id = q.run_id THEN 'decides' ELSE 'repeat' END AS state,
    q.verdict,
    q.reason,
    q.tries,
    s.verdict AS standing,
    s.decided_by AS standing_run_id
FROM store.tries t
JOIN described d USING (run_id)
LEFT JOIN store.claim_questions q USING (claim_key, use_key, question_key)
LEFT JOIN store.standing s USING (claim_key, use_key)
ORDER BY d.checkpoint, t.claim_key, t.use <> 'all', t.use, t.root_order;

-- One row per run, policy and use of the policy. `verdict` is the run's own; `standing` is the verdict that stands for
-- its claim, and `decided_by` the run that gave it: publish and decisions go by these. `declared` tells the policy that
-- the run declared from one that it was judged under later (post_hoc), which decides nothing. `tries` counts the runs
-- that compared this candidate with any baseline, on whatever architecture and engine version.
CREATE OR REPLACE VIEW verdicts AS
WITH tried AS (
    SELECT candidate_key, use_key, count(DISTINCT run_id) AS tries
    FROM store.tries
    WHERE candidate_key IS NOT NULL
    GROUP BY ALL
),
every_verdict AS (
    SELECT
        o.run_id, o.use, r.policy, r.policy_fingerprint, 'declared' AS declared, o.verdict, o.reason, o.worst_task,
        o.quality_delta, o.ci_low, o.ci_high, o.flip_rate, o.degraded, o.documents_needed,
        CASE
            WHEN o.verdict IN ('BASELINE', 'UNVALIDATED') THEN o.run_id
            ELSE coalesce(s.decided_by, d.run_id, o.run_id)
        END AS decided_by,
        r.verdict_key,
        o.claim_key,
        CASE WHEN o.verdict IN ('BASELINE', 'UNVALIDATED') THEN o.verdict ELSE coalesce(s.verdict, d.verdict, o.verdict) END
            AS standing,
        CASE
            WHEN o.verdict IN ('BASELINE', 'UNVALIDATED') THEN o.reason
            WHEN s.baseline_weights <> o.baseline_weights THEN format(
                'another baseline was tried{}: {} (run {}): {}',
                CASE WHEN s.number = 1 THEN ' first' ELSE ', too' END, s.baseline, s.run_id, s.reason)
            ELSE coalesce(s.reason, d.reason, o.reason)
        END AS standing_reason,
        CASE WHEN o.verdict = 'BASELINE' THEN 0 ELSE coalesce(t.tries, 1) END AS tries
    FROM store.own_verdicts o
    JOIN runs r USING (run_id)
    LEFT JOIN store.deciders d ON d.verdict_key = o.verdict_key AND d.use_key = o.use_key
    LEFT JOIN store.standing s ON s.claim_key = o.claim_key AND s.use_key = o.use_key
    LEFT JOIN tried t ON t.candidate_key = o.candidate_key AND t.use_key = o.use_key
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
    v.claim_key,
    v.standing,
    v.standing_reason,
    v.tries,
    r.evidence,
    r.validity,
    r.measured_at,
    r.latest
FROM every_verdict v
JOIN runs r USING (run_id)
ORDER BY r.model, NOT r.is_baseline, run_order(r.declared_order, r.started_at, r.run_id), v.declared, v.policy, v.policy_fingerprint,
    v.use <> 'all', v.use;

-- Standing verdicts that changed when an update computed the keys of questions anew, and why.
CREATE OR REPLACE VIEW changed_verdicts AS
SELECT c.run_id, r.model, r.checkpoint, c.use, c.before, c.after, c.reason, c.changed_at
FROM store.changed_verdicts c
JOIN store.runs r USING (run_id);
