-- The memory of a model's weights and of its KV cache, from the keys of its config.json.

-- Bytes of one stored number, its share of the block's scale included.
CREATE OR REPLACE MACRO stored_bytes(bits, scale_bits, values_per_scale) AS
    (bits + coalesce(scale_bits / values_per_scale, 0)) / 8;

-- Bytes of one number that a quantized checkpoint doesn't quantize (embedding, head, norms, router, vision): 16 bits,
-- or 32 if the whole model is FP32 (ModelOpt's and llm-compressor's defaults ignore lm_head; neither touches the
-- embedding).
CREATE OR REPLACE MACRO unquantized_bytes(weight_bytes) AS greatest(weight_bytes, 2);

-- The key of a model's name: lower case, without the organization.
CREATE OR REPLACE MACRO model_key(name) AS regexp_replace(lower(name), '^.*/', '');

CREATE OR REPLACE VIEW model_names AS
SELECT unnest(names) AS name_key, model FROM store.architectures;

-- Parameters by part of the model, and figures per token, of a decoder of RMSNorm, gated MLP (three matrices) and
-- GQA or MLA: modeling_llama, _mixtral, _qwen3, _qwen3_moe, _gemma3, _phi3, _llama4 and _deepseek_v3 of
-- transformers. GQA is Ainslie et al., arXiv 2305.13245; MLA is DeepSeek-V2, arXiv 2405.04434, section 2.1.
CREATE OR REPLACE VIEW model_shapes AS
WITH keys AS (
    SELECT
        *,
        num_hidden_layers AS layers,
        num_attention_heads AS heads,
        coalesce(num_key_value_heads, num_attention_heads) AS kv_heads,
        coalesce(head_dim, hidden_size // num_attention_heads) AS head_size,
        CASE WHEN use_sliding_window THEN sliding_window END AS attention_window,
        coalesce(num_experts, 0) AS experts,
        coalesce(num_experts_per_tok, 0) AS experts_per_token,
        coalesce(moe_intermediate_size, intermediate_size) AS expert_width,
        coalesce(intermediate_size_mlp, intermediate_size) AS dense_width,
        coalesce(n_shared_experts, shared_experts) AS shared,
        CASE WHEN num_experts IS NULL THEN 0
            ELSE (num_hidden_layers - first_k_dense_replace) // moe_layer_step END AS moe_layers
    FROM store.architectures
),
parts AS (
    SELECT
        *,
        CASE
            WHEN attention_window IS NULL THEN 0
            WHEN layer_types IS NOT NULL THEN len(list_filter(layer_types, lambda kind: kind <> 'full_attention'))
            WHEN sliding_window_pattern IS NULL THEN layers
            ELSE layers - layers // sliding_window_pattern
        END AS local_layers,
        vocab_size * hidden_size AS embedding_parameters,
        CASE WHEN tie_word_embeddings THEN 0 ELSE vocab_size * hidden_size END AS head_parameters,
        layers * CASE WHEN kv_lora_rank IS NULL
            THEN 2 * hidden_size * head_size * (heads + kv_heads)
            ELSE coalesce(
                    q_lora_rank * (hidden_size + heads * (qk_nope_head_dim + qk_rope_head_dim)),
                    hidden_size * heads * (qk_nope_head_dim + qk_rope_head_dim))
                + hidden_size * (kv_lora_rank + qk_rope_head_dim)
                + kv_lora_rank * heads * (qk_nope_head_dim + v_head_dim)
                + heads * v_head_dim * hidden_size
        END AS attention_parameters,
        (layers - moe_layers) * 3 * hidden_size * dense_width
            + moe_layers * shared * 3 * hidden_size * expert_width AS dense_mlp_parameters,
        moe_layers * 3 * hidden_size * expert_width AS expert_parameters,
        moe_layers * experts * (hidden_size + CASE WHEN router_bias THEN 1 ELSE 0 END) AS router_parameters,
        (layers * norms_per_layer + 1) * hidden_size
            + layers * CASE WHEN qk_norm THEN 2 * head_size ELSE 0 END
            + layers * (coalesce(q_lora_rank, 0) + coalesce(kv_lora_rank, 0)) AS norm_parameters
    FROM keys
)
SELECT
    model,
    nominal_billions,
    hidden_size,
    layers,
    heads,
    kv_heads,
    head_size,
    vocab_size,
    max_position_embeddings AS context_max_tokens,
    kv_lora_rank IS NOT NULL AS mla,
    local_layers,
    layers - local_layers AS global_layers,
    attention_window AS window_tokens,
    coalesce(list_contains(layer_types, 'chunked_attention'), false) AS chunked,  -- the window is a chunk's length
    experts,
    experts_per_token,
    moe_layers,
    embedding_parameters,
    head_parameters,
    attention_parameters,
    dense_mlp_parameters,
    expert_parameters,                  -- of one expert in every layer with experts
    router_parameters,
    norm_parameters,
    vision_parameters,
    attention_parameters + dense_mlp_parameters + experts * expert_parameters AS quantizable_parameters,
    embedding_parameters + head_parameters + router_parameters + norm_parameters + vision_parameters
        AS unquantized_parameters,
    quantizable_parameters + unquantized_parameters AS parameters,
    parameters - (experts - experts_per_token) * expert_parameters - vision_parameters AS active_parameters,
    -- Cached numbers of a token in one layer: K and V of every KV head; of MLA the latent and the shared key.
    CASE WHEN mla THEN kv_lora_rank + qk_rope_head_dim ELSE 2 * kv_heads * head_size END AS kv_values_per_layer,
    -- FLOPs of a token's attention to one earlier token in one layer (scores and values, a multiply-add is 2). MLA
    -- decodes over the latent (its matrices absorbed) and prefills over the heads' own keys and values.
    CASE WHEN mla THEN heads * 2 * (2 * kv_lora_rank + qk_rope_head_dim) ELSE heads * 4 * head_size END
        AS decode_attention_flops,
    CASE WHEN mla THEN heads * 2 * (qk_nope_head_dim + qk_rope_head_dim + v_head_dim) ELSE heads * 4 * head_size END
        AS prefill_attention_flops,
    names,
    source,
    note
FROM parts;

-- Tokens times layers that are cached for a request of that length: a local layer keeps its window.
CREATE OR REPLACE MACRO cached_layer_tokens(shape, tokens) AS
    shape.global_layers * tokens + shape.local_layers * least(tokens, coalesce(shape.window_tokens, 0));

-- True if vLLM splits the attention over so many GPUs: heads are divided; KV heads are divided, or repeated where there
-- are fewer of them than GPUs (vLLM, verify_with_parallel_config of config/model.py, and the attention of its models;
-- MLA has no KV heads to divide). NULL where the number of GPUs is unknown.
CREATE OR REPLACE MACRO divides_heads(shape, gpus) AS
    shape.heads % gpus = 0 AND (shape.mla OR shape.kv_heads % gpus = 0 OR gpus % shape.kv_heads = 0);

-- How many copies of the KV cache tensor parallelism stores over all GPUs: KV heads are split until each GPU has one,
-- then repeated; MLA's latent belongs to all heads and lies on every GPU (vLLM, QKVParallelLinear and MLA).
CREATE OR REPLACE MACRO kv_copies(shape, gpus) AS
    CASE WHEN shape.mla THEN gpus ELSE greatest(gpus, shape.kv_heads) / shape.kv_heads END;

-- Bytes of KV cache of one token in one layer, and of a request of that length, over all GPUs that share the model.
CREATE OR REPLACE MACRO kv_token_bytes(shape, value_bytes, gpus) AS
    shape.kv_values_per_layer * value_bytes * kv_copies(shape, gpus);

CREATE OR REPLACE MACRO kv_request_bytes(shape, tokens, value_bytes, gpus) AS
    cached_layer_tokens(shape, tokens) * kv_token_bytes(shape, value_bytes, gpus);

-- Bytes of the weights as a checkpoint stores them.
CREATE OR REPLACE MACRO checkpoint_bytes(shape, weight_bytes) AS
    shape.quantizable_parameters * weight_bytes
        + shape.unquantized_parameters * unquantized_bytes(weight_bytes);

-- Which models fit. One row per memory model, model, precision, GPU and count; figures are of all the GPUs together.
--   nominal: the guide's arithmetic. The GPU's decimal GB less the parameters in the model's name times the bits of
--     the precision; the rest is the KV cache's.
--   practical: NVML's MiB times gpu_memory_utilization, less the weights as stored (embedding and head unquantized,
--     scales counted), less the engine's own memory on each GPU: 1.5 GiB, from vLLM's profile on an H100 (0.16 GiB
--     outside torch, vllm-project/vllm pull request 12126; 1.26 GiB of activations for an 8B model, 10511). It is
--     more with larger batches. A context that the model doesn't have (context_max_tokens) is not refused.
-- A combination whose memory is unknown, or whose attention heads the GPUs can't share, has NULL and a reason.
CREATE OR REPLACE MACRO memory_fit_at(
    context := 8192, utilization := 0.9, kv_dtype := 'auto', engine_gib := 1.5, counts := [1, 2, 4, 8]
) AS TABLE
WITH combinations AS (
    SELECT
        s AS shape,
        s.model,
        s.nominal_billions,
        w.format AS precision,
        g.gpu,
        g.formats[w.format] AS kernel_mode,
        n.gpu_count,
        g.vram_gb,
        g.nvml_memory_mib,
        stored_bytes(w.bits, w.scale_bits, w.values_per_scale) AS weight_bytes,
        w.bits / 8 AS nominal_weight_bytes,
        k.format AS kv_cache_dtype,
        stored_bytes(k.bits, k.scale_bits, k.values_per_scale) AS kv_value_bytes,
        CASE WHEN NOT divides_heads(s, n.gpu_count) THEN 'heads_not_divisible' END AS not_shared
    FROM model_shapes s
    CROSS JOIN store.number_formats w
    CROSS JOIN store.gpus g
    CROSS JOIN (SELECT unnest(counts) AS gpu_count) n
    JOIN store.number_formats k ON k.holds = 'kv_cache' AND k.format = kv_dtype
    WHERE w.holds = 'weights' AND g.vram_gb IS NOT NULL
),
modelled AS (
    SELECT
        'nominal' AS memory_model,
        *,
        NULL::DOUBLE AS gpu_memory_utilization,
        vram_gb * 1e9 * gpu_count AS memory_bytes,
        nominal_billions * 1e9 * nominal_weight_bytes AS weights_bytes,
        0 AS engine_bytes,
        coalesce(not_shared, CASE WHEN nominal_billions IS NULL THEN 'no_nominal_parameters' END) AS null_reason
    FROM combinations
    UNION ALL BY NAME
    SELECT
        'practical' AS memory_model,
        *,
        utilization::DOUBLE AS gpu_memory_utilization,
        nvml_memory_mib * 1048576 * utilization * gpu_count AS memory_bytes,
        checkpoint_bytes(shape, weight_bytes) AS weights_bytes,
        engine_gib * 1073741824 * gpu_count AS engine_bytes,
        coalesce(not_shared, CASE WHEN nvml_memory_mib IS NULL THEN 'no_nvml_memory' END) AS null_reason
    FROM combinations
),
fitted AS (
    SELECT
        *,
        CASE WHEN null_reason IS NULL THEN memory_bytes - weights_bytes END AS left_bytes,
        CASE WHEN null_reason IS NULL THEN greatest(left_bytes - engine_bytes, 0) END AS kv_bytes,
        CASE WHEN not_shared IS NULL THEN kv_request_bytes(shape, context, kv_value_bytes, gpu_count) END
            AS request_bytes
    FROM modelled
)
SELECT
    memory_model,
    model,
    precision,
    gpu,
    gpu_count,
    kernel_mode,
    context::BIGINT AS context_tokens,
    kv_cache_dtype,
    gpu_memory_utilization,
    memory_bytes / 1e9 AS memory_gb,
    weights_bytes / 1e9 AS weights_gb,
    left_bytes / 1e9 AS left_gb,        -- after the weights; below zero if they don't fit
    left_bytes / 1073741824 AS left_gib,
    kv_bytes / 1073741824 AS kv_cache_gib,
    request_bytes / context AS kv_bytes_per_token,
    request_bytes / 1e9 AS kv_gb_per_request,
    floor(kv_bytes / request_bytes * context)::BIGINT AS kv_cache_tokens,
    kv_bytes / request_bytes AS concurrent_requests,
    kv_bytes >= request_bytes AS fits,  -- at least one request of that context
    null_reason
FROM fitted
ORDER BY memory_model, model, precision, gpu, gpu_count;

-- The same for contexts of 8,192 tokens at vLLM's usual 0.9.
CREATE OR REPLACE VIEW memory_fit AS FROM memory_fit_at();
