-- Documents of the largest cluster of a task: how many its verdict takes depends on it.
ALTER TABLE store.task_verdicts ADD COLUMN largest_cluster BIGINT;
ALTER TABLE store.post_hoc_task_verdicts ADD COLUMN largest_cluster BIGINT;
