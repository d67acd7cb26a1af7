-- The quality delta corrected for stopping early, beside the observed one; NULL where a verdict was stored before.
ALTER TABLE store.task_verdicts ADD COLUMN quality_delta_corrected DOUBLE;
ALTER TABLE store.post_hoc_task_verdicts ADD COLUMN quality_delta_corrected DOUBLE;
