-- The threshold of each alarm, and its source. An alarm is a reason to inspect a run; it never changes a verdict.
CREATE OR REPLACE VIEW alarm_rules AS
SELECT * REPLACE (threshold::DOUBLE AS threshold) FROM (VALUES
    ('output_length', 'output_length', 0.10,
        'A candidate''s answers are together more than this share shorter or longer than its baseline''s to the same documents.',
        'MLPerf Inference: generated tokens per sample stay within 90 to 110 % of the reference''s'),
    ('cap_hits', 'cap_hits', 0.01,
        'The share of a candidate''s answers that reach the token limit exceeds its baseline''s by more than this.',
        'ours: the tightest margin of the policy standard; as many answers cut off could decide a verdict alone'),
    ('cap_hits', 'cap_hits_baseline', 0.10,
        'More than this share of a baseline''s answers reach the token limit: the task measures the limit.',
        'ours'),
    ('empty_answers', 'empty_answers', 0.01,
        'More than this share of the answers are empty.',
        'ours: the tightest margin of the policy standard'),
    ('nan_scores', 'nan_scores', 0,
        'More than this many scores are not a number; the judge compares no such task.',
        'ours: every document has a score'),
    ('perfect_score', 'perfect_score', 20,
        'Every answer is right, to at least this many documents.',
        'ours: a benchmark that a model has never failed measures nothing, or its answers were in the prompts'),
    ('implausible_gain', 'implausible_gain', 0.01,
        'A candidate is better than its baseline: its delta''s interval lies above the A/A''s noise, and the exact sign test is below this.',
        'ours: quantizing adds no knowledge'),
    ('below_published', 'below_published', 0.03,
        'A baseline scores below its published figure by more than its interval and this tolerance.',
        'two runs of one checkpoint differed by 0.35 points on average and 3.2 at most (sch0tten/nvfp4-benchmark)'),
    ('kl_high', 'kl_high', 0.05,
        'A candidate''s mean divergence per token from its baseline exceeds this many nats (view fidelity).',
        'llama.cpp, tools/perplexity/README.md, LLaMA 3 8b Scoreboard: the 4-bit formats in wide use lie at 0.028 to 0.043 '
        'nats (perplexity up 2 to 4 %), those they replaced and 3-bit ones at 0.072 and more (up 7 % and more)'),
    ('nan_logprobs', 'nan_logprobs', 0,
        'More than this many tokens of the fixed text have a log-probability that is not a number (view fidelity).',
        'ours: every token has one'),
    ('aa_noise', 'aa_noise', 0.01,
        'A baseline''s own answers flip so often over a restart that the margin can''t be resolved, or its score moves: exact two-sided sign test below this.',
        'ours')
) AS rules(code, rule, threshold, meaning, source);

-- Published scores of baselines: from configs/models, then from the stored evidence of lm-eval's own tasks, averaged
-- over repeated runs. `version` is the task's in lm-eval; NULL if unknown.
CREATE OR REPLACE VIEW store.known_scores AS
WITH every_score AS (
    SELECT checkpoint, task, metric, filter, NULL AS version, score, documents, comparable, source, note
    FROM store.baseline_scores
    UNION ALL BY NAME
    SELECT checkpoint, task, metric, filter, task_version AS version, avg(score) AS score,
        min(documents) AS documents, true AS comparable, min(source) AS source,
        format('{}, {}, {} runs', min(harness), min(engine), count(*)) AS note
    FROM store.published_scores
    WHERE is_baseline
    GROUP BY ALL
)
SELECT * FROM every_score
QUALIFY row_number() OVER (PARTITION BY checkpoint, task, metric, filter ORDER BY version NULLS FIRST) = 1;

-- One row per run and task: properties of its answers, its baseline's noise (A/A), published scores, and alarms.
CREATE OR REPLACE VIEW controls AS
WITH rule AS (
    SELECT map_from_entries(list({'key': rule, 'value': threshold})) AS lines FROM alarm_rules
),
delta AS (
    SELECT DISTINCT ON (run_id, task) run_id, task, quality_delta, ci_low FROM store.task_verdicts
),
figures AS (
    SELECT
        r.run_id,
        r.baseline_run_id,
        r.is_baseline,
        r.model,
        r.checkpoint,
        r.precision,
        r.gpu,
        r.engine_version,
        t.task,
        t.family,
        t.metric,
        t.filter,
        c.documents,
        c.mean_score,
        c.nan_scores,
        c.empty_answers,
        c.empty_answers / c.documents AS empty_rate,
        c.cap_hits / nullif(c.ended, 0) AS cap_hit_rate,
        CASE WHEN NOT r.is_baseline THEN c.baseline_cap_hit_rate END AS baseline_cap_hit_rate,
        c.output_tokens_mean,
        c.output_length_ratio,
        c.baseline_loaded,
        c.p_gain,
        d.quality_delta,
        d.ci_low AS quality_delta_ci_low,
        a.documents AS aa_documents,
        a.flips AS aa_flips,
        a.flips / a.documents AS aa_flip_rate,
        a.flip_rate_upper AS aa_flip_rate_upper,
        a.delta AS aa_delta,
        a.delta_ci_low AS aa_delta_ci_low,
        a.delta_ci_high AS aa_delta_ci_high,
        a.p_moved AS aa_p,
        a.changed_responses / a.documents AS aa_changed_responses,
        a.resolution AS aa_resolution,
        p.score AS published_score,
        p.comparable AS published_comparable,
        p.source AS published_source,
        p.note AS published_note,
        pol.alpha,
        pol.families[t.family].margin AS margin,
        r.measured_at,
        r.latest
    FROM store.task_controls c
    JOIN store.run_tasks t USING (run_id, task)
    JOIN runs r USING (run_id)
    JOIN store.policies pol ON pol.policy = r.policy AND pol.policy_fingerprint = r.policy_fingerprint
    LEFT JOIN delta d USING (run_id, task)
    LEFT JOIN store.aa_controls a ON a.run_id = coalesce(r.baseline_run_id, r.run_id) AND a.task = t.task
    LEFT JOIN store.known_scores p
      ON p.checkpoint = r.baseline AND p.task = t.task AND p.metric = t.metric AND p.filter = t.filter
     AND coalesce(p.version, t.version) = t.version
),
alarmed AS (
    SELECT
        f.*,
        list_filter([
            CASE WHEN NOT is_baseline AND abs(output_length_ratio - 1) > lines['output_length'] THEN {
                'code': 'output_length',
                'text': format('answers are {:.2f} times as long as the baseline''s', output_length_ratio)} END,
            CASE WHEN cap_hit_rate > baseline_cap_hit_rate + lines['cap_hits'] THEN {
                'code': 'cap_hits',
                'text': format('{:.1f} % of the answers reach the token limit, {:.1f} % of the baseline''s',
                    100 * cap_hit_rate, 100 * baseline_cap_hit_rate)} END,
            CASE WHEN is_baseline AND cap_hit_rate > lines['cap_hits_baseline'] THEN {
                'code': 'cap_hits',
                'text': format('{:.1f} % of the answers reach the token limit', 100 * cap_hit_rate)} END,
            CASE WHEN empty_rate > lines['empty_answers'] THEN {
                'code': 'empty_answers',
                'text': format('{} of {} answers are empty', empty_answers, documents)} END,
            CASE WHEN nan_scores > lines['nan_scores'] THEN {
                'code': 'nan_scores',
                'text': format('{} of {} scores are not a number', nan_scores, documents)} END,
            CASE WHEN mean_score >= 1 AND documents >= lines['perfect_score'] THEN {
                'code': 'perfect_score',
                'text': format('all {} answers are right', documents)} END,
            CASE WHEN p_gain <= lines['implausible_gain'] AND quality_delta_ci_low > coalesce(aa_delta_ci_high, 0) THEN {
                'code': 'implausible_gain',
                'text': format('{:+.2f} points, at least {:+.2f}: better than the baseline by more than noise explains ({})',
                    100 * quality_delta, 100 * quality_delta_ci_low,
                    coalesce(format('A/A up to {:+.2f}', 100 * aa_delta_ci_high), 'no A/A'))} END,
            CASE WHEN is_baseline AND published_comparable
                AND mean_score + 1.645 * sqrt(mean_score * (1 - mean_score) / documents) + lines['below_published']
                    < published_score THEN {
                'code': 'below_published',
                'text': format('scores {:.1f} %, and {:.1f} % is published ({})',
                    100 * mean_score, 100 * published_score, published_source)} END,
            CASE WHEN is_baseline AND aa_resolution > margin THEN {
                'code': 'aa_noise',
                'text': format('{} of {} answers flip over a restart: {} documents can''t resolve a margin below {:.2f} points',
                    aa_flips, aa_documents, documents, 100 * aa_resolution)}
            WHEN is_baseline AND aa_p <= lines['aa_noise'] THEN {
                'code': 'aa_noise',
                'text': format('the score moves by {:+.2f} points over a restart (p {:.2g})', 100 * aa_delta, aa_p)} END
        ], lambda alarm: alarm IS NOT NULL) AS raised
    FROM figures f, rule
)
SELECT
    run_id,
    baseline_run_id,
    model,
    checkpoint,
    precision,
    gpu,
    engine_version,
    task,
    family,
    documents,
    mean_score,
    published_score,
    output_tokens_mean,
    output_length_ratio,
    cap_hit_rate,
    baseline_cap_hit_rate,
    empty_rate,
    nan_scores,
    aa_documents,
    aa_flips,
    aa_flip_rate,
    aa_flip_rate_upper,
    aa_delta,
    aa_delta_ci_low,
    aa_delta_ci_high,
    aa_changed_responses,
    aa_resolution,
    list_transform(raised, lambda alarm: alarm.code) AS alarms,
    list_transform(raised, lambda alarm: alarm.text) AS alarm_texts,
    published_comparable,
    published_source,
    published_note,
    map_from_entries(list_filter([
        why_null('mean_score', mean_score, 'no_numeric_score'),
        why_null('published_score', published_score, 'none_known'),
        why_null('output_tokens_mean', output_tokens_mean, 'not_generated'),
        why_null('output_length_ratio', output_length_ratio, CASE
            WHEN is_baseline THEN 'not_applicable'
            WHEN output_tokens_mean IS NULL THEN 'not_generated'
            WHEN NOT baseline_loaded THEN 'no_baseline'
            ELSE 'not_comparable' END),
        why_null('cap_hit_rate', cap_hit_rate, 'not_generated'),
        why_null('baseline_cap_hit_rate', baseline_cap_hit_rate, CASE
            WHEN is_baseline THEN 'not_applicable'
            WHEN cap_hit_rate IS NULL THEN 'not_generated'
            WHEN NOT baseline_loaded THEN 'no_baseline'
            ELSE 'not_comparable' END),
        why_null('aa_documents', aa_documents, 'not_measured')
    ], lambda entry: entry IS NOT NULL)) AS null_reasons,
    is_baseline,
    measured_at,
    latest
FROM alarmed
ORDER BY model, NOT is_baseline, measured_at, run_id, family, task;
