-- What bundles of schema_version 2 hold beyond the first layout, and what the judge says of a run that stopped early.
ALTER TABLE store.samples ADD COLUMN position INTEGER;
ALTER TABLE store.run_tasks ADD COLUMN documents_available BIGINT;
ALTER TABLE store.run_tasks ADD COLUMN looks BIGINT[];
ALTER TABLE store.task_verdicts ADD COLUMN documents_available BIGINT;
ALTER TABLE store.task_verdicts ADD COLUMN looks INTEGER;
ALTER TABLE store.task_verdicts ADD COLUMN clusters BIGINT;
ALTER TABLE store.post_hoc_task_verdicts ADD COLUMN documents_available BIGINT;
ALTER TABLE store.post_hoc_task_verdicts ADD COLUMN looks INTEGER;
ALTER TABLE store.post_hoc_task_verdicts ADD COLUMN clusters BIGINT;
ALTER TABLE store.policies ADD COLUMN looks DOUBLE[];
ALTER TABLE store.policies ADD COLUMN min_clusters INTEGER;
ALTER TABLE store.policies ADD COLUMN aa_documents INTEGER;

-- The baseline's second answers to the first documents of each task, over a restart of its engine (A/A).
CREATE TABLE store.control_samples AS FROM store.samples LIMIT 0;

-- What the engine thinks of each token of a fixed text.
CREATE TABLE store.fidelity (
    run_id VARCHAR NOT NULL,
    text_id VARCHAR NOT NULL,
    token_index INTEGER NOT NULL,
    token_id INTEGER NOT NULL,
    logprob DOUBLE NOT NULL,            -- natural logarithm
    top_token_ids INTEGER[] NOT NULL,
    top_logprobs FLOAT[] NOT NULL,
    k INTEGER NOT NULL,
    vocab_size INTEGER NOT NULL,
    engine_start_id VARCHAR NOT NULL
);
