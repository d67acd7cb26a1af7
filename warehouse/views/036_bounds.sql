-- The physical limit: a roofline (Williams et al., CACM 52(4), 2009) of a decode step and of a prompt, for weights
-- and KV cache on tensor-parallel GPUs. It is an upper bound: memory, tensor cores and links are each used all the
-- time and at their datasheet's rate, and overlap wholly; activations, sampling and launches cost nothing.

-- Experts of a layer that a batch reads: at least those of one token, since a router may send all tokens to the same
-- ones. With even routing, each token choosing k of E at random, it is E (1 - (1 - k/E)^batch) on average; a skewed router
-- reads fewer, so that this is an estimate and no limit. 0 without experts.
CREATE OR REPLACE MACRO experts_read(shape, tokens, even_routing) AS
    CASE WHEN even_routing AND shape.experts > 0
        THEN shape.experts * (1 - pow(1 - shape.experts_per_token / shape.experts, tokens))
        ELSE shape.experts_per_token END;

-- Bytes of weights that a forward pass reads: every layer's, the head (the embedding's matrix where tied), and so many
-- experts of a layer. A row of the embedding per token is left out.
CREATE OR REPLACE MACRO read_weight_bytes(shape, weight_bytes, experts) AS
    (shape.attention_parameters + shape.dense_mlp_parameters + experts * shape.expert_parameters) * weight_bytes
        + (shape.vocab_size * shape.hidden_size + shape.router_parameters + shape.norm_parameters)
            * unquantized_bytes(weight_bytes);

-- FLOPs of a token's matrix products: 2 per weight (Kaplan et al., arXiv 2001.08361, section 2.1).
CREATE OR REPLACE MACRO matrix_flops(shape) AS
    2 * (shape.attention_parameters + shape.dense_mlp_parameters + shape.router_parameters
        + shape.experts_per_token * shape.expert_parameters);

CREATE OR REPLACE MACRO head_flops(shape) AS 2 * shape.vocab_size * shape.hidden_size;

-- Positions that a number of tokens attend to in total, each to those before it and at most a span.
CREATE OR REPLACE MACRO attended(tokens, span) AS
    pow(least(tokens, span), 2) / 2 + greatest(tokens - span, 0) * span;

-- The same in chunks, each token attending to those before it in its own: to half a chunk on average.
CREATE OR REPLACE MACRO attended_in_chunks(tokens, chunk) AS
    (tokens // chunk) * pow(chunk, 2) / 2 + pow(tokens % chunk, 2) / 2;

-- The same, summed over the layers, each with its own span; a local layer counts as a share of a global one. An index
-- leaves so many tokens to attend to; what compressed layers read beside their window is left out, as is an index's own.
CREATE OR REPLACE MACRO attended_layer_tokens(shape, tokens, local_share) AS
    shape.global_layers * attended(tokens, least(tokens, coalesce(shape.index_topk, tokens)))
        + shape.local_layers * local_share * CASE WHEN shape.chunked THEN attended_in_chunks(tokens, shape.window_tokens)
            ELSE attended(tokens, coalesce(shape.window_tokens, tokens)) END;

-- Bytes that each GPU sends in the all-reduces of a forward pass: two per layer (Shoeybi et al.,
-- arXiv 1909.08053, section 3) of hidden_size 16-bit numbers per token, of which a ring sends 2 (n - 1)/n (Patarasuk
-- and Yuan, 2009). It receives as many, over the link's other direction.
CREATE OR REPLACE MACRO all_reduce_bytes(shape, tokens, gpus) AS
    2 * shape.layers * tokens * shape.hidden_size * 2 * 2 * (gpus - 1) / gpus;

-- The batch from which decode is bound by compute instead of memory: the B that solves
--   weights + B kv = B flops bandwidth/tflops,
-- where gain is what a request adds to the right less what it adds to the left. NULL if the KV cache of a request takes
-- longer to read than its token to compute: then there is no such batch.
CREATE OR REPLACE MACRO crossover_batch(shape, weight_bytes, gain) AS
    CASE WHEN gain > 0 THEN read_weight_bytes(shape, weight_bytes, shape.experts_per_token) / gain END;

CREATE OR REPLACE MACRO slowest(bandwidth_s, compute_s, interconnect_s) AS
    CASE
        WHEN interconnect_s > greatest(bandwidth_s, compute_s) THEN 'interconnect'
        WHEN compute_s > bandwidth_s THEN 'compute'
        ELSE 'bandwidth'
    END;

-- A figure of a limit; NULL if there is a reason for no limit.
CREATE OR REPLACE MACRO unless(reason, value) AS CASE WHEN reason IS NULL THEN value END;

-- Weights by their format; of a run's checkpoint with layers of several precisions the bits that they have on average in
-- its files (prediction layers in proportion), and the fastest product among them, since this is for a limit.
CREATE OR REPLACE VIEW weight_formats AS
SELECT format, bits, scale_bits, values_per_scale, compute FROM store.number_formats WHERE holds = 'weights'
UNION ALL BY NAME
SELECT
    'mixed ' || r.run_id AS format,
    8 * (r.size_bytes * (s.parameters / (s.parameters + s.mtp_parameters)) - 2 * s.unquantized_parameters)
        / s.quantizable_parameters AS bits,
    0 AS scale_bits,
    (
        SELECT (['fp16', 'fp8', 'fp4'])[max(list_position(['fp16', 'fp8', 'fp4'], f.compute))]
        FROM store.number_formats f
        WHERE f.holds = 'weights' AND list_contains(json_keys(r.manifest, '$.checkpoint.layers'), f.format)
    ) AS compute
FROM store.runs r
JOIN model_names n ON n.name_key = model_key(r.model)
JOIN model_shapes s ON s.model = n.model
WHERE r.precision = 'mixed';

-- The limit of each row of a relation, given by name (a view, a table, or a CTE of the query).
--
-- It has the columns model, precision, kernel_mode (NULL: the GPU's own for the precision), kv_cache_dtype, gpu,
-- gpu_count, mig_slice, tensor_parallel (GPUs that share one copy of the model; NULL if unknown: then
-- all of them, one copy of the KV cache and links that cost nothing, which no arrangement beats), isl, osl,
-- concurrency (over all GPUs; NULL: as many requests as memory holds). Each row is returned once, with
--   bound_tok_s      output tokens/s over all GPUs that no engine exceeds at that load. While a request takes its osl
--                    decode steps its slot also prefills one prompt, so that each resource serves osl steps and
--                    batch prompts; the prompts' weights are read along with the steps'. No more requests decode at
--                    once than all of the memory holds at their mean context.
--   bound_by         the limiting resource: bandwidth, compute or interconnect
--   no_bound         why there is no limit
--   crossover_batch  requests from which a step can compute longer than it reads (NULL: none); crossover_batch_least
--                    at no context, which is the least possible
-- and the figures of a decode step, at the mean of the contexts from isl to isl + osl, and of one prompt. The limit
-- does not hold with speculative decoding or shared prefixes, which save steps and reads. Of a mixture of experts it lies
-- far above what an engine reaches with a large batch. With even_routing the figures are what even routing would read,
-- for an estimate of a duration: they are no limit.
CREATE OR REPLACE MACRO bounds_of(points, even_routing := false) AS TABLE
WITH facts AS (
    SELECT
        p.*,
        s AS shape,
        stored_bytes(w.bits, w.scale_bits, w.values_per_scale) AS weight_bytes,
        stored_bytes(k.bits, k.scale_bits, k.values_per_scale) AS kv_value_bytes,
        coalesce(p.kernel_mode, g.formats[p.precision]) AS bound_kernel_mode,
        coalesce(p.tensor_parallel, p.gpu_count) AS sharing_gpus,
        p.gpu_count / sharing_gpus AS replicas,
        coalesce(p.tensor_parallel, 1) AS kv_gpus,
        g.bandwidth_gb_s * 1e9 AS bandwidth,
        CASE CASE WHEN bound_kernel_mode = 'native' OR p.precision LIKE 'mixed %' THEN w.compute ELSE 'fp16' END
            WHEN 'fp16' THEN g.dense_fp16_tflops
            WHEN 'fp8' THEN g.dense_fp8_tflops
            WHEN 'fp4' THEN CASE WHEN p.precision LIKE 'mixed %'
                THEN coalesce(g.dense_fp4_tflops, g.dense_fp8_tflops) ELSE g.dense_fp4_tflops END
        END * 1e12 AS peak_flops,
        CASE WHEN p.tensor_parallel > 1 THEN g.interconnect_gb_s / 2 * 1e9 END AS link,  -- one direction of the two
        greatest(g.vram_gb * 1e9, g.nvml_memory_mib * 1048576) * sharing_gpus AS gpu_memory,
        CASE
            WHEN s.model IS NULL THEN 'unknown_model'
            WHEN w.bits IS NULL OR k.bits IS NULL THEN 'unknown_format'
            WHEN g.gpu IS NULL THEN 'unknown_gpu'
            WHEN p.mig_slice IS NOT NULL THEN 'mig_slice'
            WHEN bound_kernel_mode = 'emulated' THEN 'emulated_no_speed'
            WHEN bound_kernel_mode = 'unknown' THEN 'unknown_kernel'
            WHEN bound_kernel_mode IS NULL OR bound_kernel_mode = 'none' THEN 'no_kernel'
            WHEN bandwidth IS NULL THEN 'no_bandwidth'
            WHEN peak_flops IS NULL THEN 'no_tflops'
            WHEN gpu_memory IS NULL THEN 'no_memory'
            WHEN p.tensor_parallel > 1 AND link IS NULL THEN 'no_interconnect'
            WHEN NOT divides_heads(s, p.tensor_parallel) THEN 'heads_not_divisible'
            WHEN p.isl IS NULL OR p.osl IS NULL THEN 'no_lengths'
        END AS unbounded
    FROM query_table(points) p
    LEFT JOIN model_names n ON n.name_key = model_key(p.model)
    LEFT JOIN model_shapes s ON s.model = n.model
    LEFT JOIN store.gpus g ON g.gpu = p.gpu
    LEFT JOIN weight_formats w ON w.format = p.precision
    LEFT JOIN store.number_formats k ON k.holds = 'kv_cache' AND k.format = p.kv_cache_dtype
),
batched AS (
    SELECT
        *,
        (attended_layer_tokens(shape, isl + osl, shape.local_flops_share)
            - attended_layer_tokens(shape, isl, shape.local_flops_share)) / osl AS mean_layer_tokens,
        (attended_layer_tokens(shape, isl + osl, local_kv_share(shape, kv_gpus))
            - attended_layer_tokens(shape, isl, local_kv_share(shape, kv_gpus))) / osl AS mean_cached_tokens,
        mean_cached_tokens * kv_token_bytes(shape, kv_value_bytes, kv_gpus) / sharing_gpus AS request_kv_bytes,
        (gpu_memory - checkpoint_bytes(shape, weight_bytes)) / (request_kv_bytes * sharing_gpus) AS held_requests,
        coalesce(unbounded, CASE WHEN held_requests < 1 THEN 'does_not_fit' END) AS reason,
        least(concurrency / replicas, held_requests) AS batch
    FROM facts
),
steps AS (
    SELECT
        *,
        read_weight_bytes(shape, weight_bytes, experts_read(shape, batch, even_routing)) / sharing_gpus
            + batch * request_kv_bytes AS step_bytes,
        (matrix_flops(shape) + head_flops(shape)) / sharing_gpus AS token_matrix_flops,
        token_matrix_flops + shape.decode_attention_flops * mean_layer_tokens / sharing_gpus
            AS token_flops,
        all_reduce_bytes(shape, batch, sharing_gpus) AS step_link_bytes,
        (read_weight_bytes(shape, weight_bytes, experts_read(shape, isl, even_routing))
            + kv_request_bytes(shape, isl, kv_value_bytes, kv_gpus)) / sharing_gpus AS prompt_bytes,
        (isl * matrix_flops(shape) + head_flops(shape) + shape.prefill_attention_flops
            * attended_layer_tokens(shape, isl, shape.local_flops_share)) / sharing_gpus AS prompt_flops,
        all_reduce_bytes(shape, isl, sharing_gpus) AS prompt_link_bytes
    FROM batched
),
timed AS (
    SELECT
        *,
        step_bytes / bandwidth AS step_bandwidth_s,
        batch * token_flops / peak_flops AS step_compute_s,
        coalesce(step_link_bytes / link, 0) AS step_link_s,
        prompt_bytes / bandwidth AS prompt_bandwidth_s,
        prompt_flops / peak_flops AS prompt_compute_s,
        coalesce(prompt_link_bytes / link, 0) AS prompt_link_s,
        osl * step_bandwidth_s AS load_bandwidth_s,
        osl * step_compute_s + batch * prompt_compute_s AS load_compute_s,
        osl * step_link_s + batch * prompt_link_s AS load_link_s,
        greatest(step_bandwidth_s, step_compute_s, step_link_s) AS step_s,
        greatest(prompt_bandwidth_s, prompt_compute_s, prompt_link_s) AS prompt_s,
        greatest(load_bandwidth_s, load_compute_s, load_link_s) AS load_s,
        bandwidth / peak_flops * sharing_gpus AS bytes_per_flop
    FROM steps
)
SELECT
    * EXCLUDE (
        shape, weight_bytes, kv_value_bytes, bound_kernel_mode, sharing_gpus, replicas, kv_gpus, mean_layer_tokens, mean_cached_tokens,
        bandwidth, peak_flops, link, gpu_memory, unbounded, request_kv_bytes, held_requests, reason, batch, step_bytes, token_matrix_flops,
        token_flops, step_link_bytes, prompt_bytes, prompt_flops, prompt_link_bytes, step_bandwidth_s, step_compute_s,
        step_link_s, prompt_bandwidth_s, prompt_compute_s, prompt_link_s, load_bandwidth_s, load_compute_s,
        load_link_s, step_s, prompt_s, load_s, bytes_per_flop
    ),
    unless(reason, replicas * batch * osl / load_s) AS bound_tok_s,
    unless(reason, slowest(load_bandwidth_s, load_compute_s, load_link_s)) AS bound_by,
    reason AS no_bound,
    unless(reason, batch) AS decode_batch,                  -- requests that a copy of the model decodes at once
    unless(reason, step_bytes / 1e9) AS decode_gb,          -- that each GPU reads in a step, at least
    unless(reason, batch * token_flops / 1e12) AS decode_tflop,
    unless(reason, step_link_bytes / 1e9) AS decode_all_reduce_gb,
    unless(reason, step_s * 1e3) AS decode_step_ms,
    unless(reason, replicas * batch / step_s) AS decode_tok_s,
    unless(reason, slowest(step_bandwidth_s, step_compute_s, step_link_s)) AS decode_by,
    unless(reason, prompt_s * 1e3) AS prefill_ms,
    unless(reason, replicas * isl / prompt_s) AS prefill_tok_s,
    unless(reason, slowest(prompt_bandwidth_s, prompt_compute_s, prompt_link_s)) AS prefill_by,
    unless(reason, crossover_batch(
        shape, weight_bytes, token_flops * bytes_per_flop - request_kv_bytes * sharing_gpus)) AS crossover_batch,
    unless(reason, crossover_batch(shape, weight_bytes, token_matrix_flops * bytes_per_flop))
        AS crossover_batch_least
FROM timed;

-- A measured or published rate as a percentage of its limit; NULL above 100, since then the limit's assumptions
-- (or the rate) are wrong.
CREATE OR REPLACE MACRO pct_of(tok_s, bound_tok_s) AS
    CASE WHEN tok_s <= bound_tok_s THEN 100 * tok_s / bound_tok_s END;

-- Every load point with the columns that bounds_of needs. A run's GPUs are those that share its model. Where the
-- engine's log named no kernel, the GPU's own is no guess to measure a run against.
CREATE OR REPLACE VIEW run_points AS
SELECT
    t.run_id,
    t.model,
    CASE WHEN t.precision = 'mixed' THEN 'mixed ' || t.run_id ELSE served_precision(r.precision, r.serving_arguments['dtype']) END AS precision,
    coalesce(t.kernel_mode, 'unknown') AS kernel_mode,
    r.kv_cache_dtype,
    t.gpu,
    t.gpu_count,
    t.gpu_count AS tensor_parallel,
    t.mig_slice,
    t.isl,
    t.osl,
    t.operating_point,
    t.concurrency
FROM throughput_points t
JOIN store.runs r USING (run_id);

CREATE OR REPLACE VIEW run_points_without_bounds AS
SELECT p.* FROM run_points p ANTI JOIN store.run_bounds USING (run_id);

-- The limits of every model, precision, GPU and count of GPUs at a load, one copy of the model over all of them.
CREATE OR REPLACE MACRO bounds_at(
    isl_tokens := 1024, osl_tokens := 1024, kv_dtype := 'auto', counts := [1, 2, 4, 8],
    levels := [1, 4, 8, 32, 128, 512]
) AS TABLE
WITH bound_points AS (
    SELECT
        s.model,
        w.format AS precision,
        g.formats[w.format] AS kernel_mode,
        kv_dtype AS kv_cache_dtype,
        g.gpu,
        n.gpu_count,
        n.gpu_count AS tensor_parallel,
        NULL::VARCHAR AS mig_slice,
        isl_tokens AS isl,
        osl_tokens AS osl,
        c.concurrency
    FROM model_shapes s
    CROSS JOIN store.number_formats w
    CROSS JOIN store.gpus g
    CROSS JOIN (SELECT unnest(counts) AS gpu_count) n
    CROSS JOIN (SELECT unnest(levels) AS concurrency) c
    WHERE w.holds = 'weights' AND g.formats[w.format] IN ('native', 'weight_only')
)
SELECT * EXCLUDE (mig_slice, tensor_parallel)
FROM bounds_of('bound_points')
ORDER BY model, precision, gpu, gpu_count, concurrency;

CREATE OR REPLACE VIEW bounds AS FROM bounds_at();
