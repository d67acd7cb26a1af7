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

-- Parameters of one layer's attention: Q, K, V and output; a gate is as wide as the output.
CREATE OR REPLACE MACRO gqa_parameters(hidden, heads, kv_heads, head_size, value_size, gated, keys_are_values) AS
    hidden * (heads * (head_size + value_size) + kv_heads * head_size
        + CASE WHEN keys_are_values THEN 0 ELSE kv_heads * value_size END
        + CASE WHEN gated THEN heads * value_size ELSE 0 END);

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
        coalesce(shared_expert_intermediate_size, coalesce(n_shared_experts, shared_experts) * expert_width)
            AS shared_width,
        CASE
            WHEN num_experts IS NULL THEN 0
            WHEN mlp_layer_types IS NOT NULL
                THEN len(list_filter(mlp_layer_types, lambda kind: kind IN ('sparse', 'both')))
            ELSE (num_hidden_layers - first_k_dense_replace) // moe_layer_step
        END AS moe_layers,
        CASE WHEN mlp_layer_types IS NULL THEN num_hidden_layers - moe_layers
            ELSE len(list_filter(mlp_layer_types, lambda kind: kind IN ('dense', 'both'))) END AS dense_layers,
        coalesce(len(list_filter(layer_types, lambda kind: kind IN ('linear_attention', 'mamba'))), 0) AS linear_layers,
        CASE WHEN layer_types IS NULL THEN num_hidden_layers ELSE len(list_filter(layer_types, lambda kind:
            kind IN ('full_attention', 'sliding_attention', 'chunked_attention'))) END AS attention_layers,
        coalesce(v_head_dim, head_size) AS value_size,
        coalesce(swa_num_attention_heads, heads) AS local_heads,
        coalesce(swa_num_key_value_heads, kv_heads) AS local_kv_heads,
        coalesce(swa_head_dim, head_size) AS local_head_size,
        coalesce(swa_v_head_dim, CASE WHEN swa_head_dim IS NULL THEN v_head_dim END, local_head_size)
            AS local_value_size
    FROM store.architectures
),
parts AS (
    SELECT
        *,
        CASE
            WHEN attention_window IS NULL THEN 0
            WHEN layer_types IS NOT NULL
                THEN len(list_filter(layer_types, lambda kind: kind IN ('sliding_attention', 'chunked_attention')))
            WHEN sliding_window_pattern IS NULL THEN layers
            ELSE layers - layers // sliding_window_pattern
        END AS local_layers,
        attention_layers - local_layers AS global_layers,
        vocab_size * hidden_size AS embedding_parameters,
        CASE WHEN tie_word_embeddings THEN 0 ELSE vocab_size * hidden_size END AS head_parameters,
        CASE
            WHEN o_lora_rank IS NOT NULL THEN attention_layers * (
                    q_lora_rank * (hidden_size + heads * head_size)
                    + hidden_size * head_size
                    + o_lora_rank * (heads * head_size + o_groups * hidden_size))
                + 2 * hidden_size * head_size * (
                    len(list_filter(compress_ratios, lambda ratio: ratio > 0)) + index_layers)
            WHEN kv_lora_rank IS NULL
                THEN global_layers * gqa_parameters(hidden_size, heads, kv_heads, head_size, value_size,
                        attn_output_gate, attention_k_eq_v)
                    + local_layers * gqa_parameters(hidden_size, local_heads, local_kv_heads, local_head_size,
                        local_value_size, attn_output_gate, false)
            ELSE attention_layers * (coalesce(
                    q_lora_rank * (hidden_size + heads * (qk_nope_head_dim + qk_rope_head_dim)),
                    hidden_size * heads * (qk_nope_head_dim + qk_rope_head_dim))
                + hidden_size * (kv_lora_rank + qk_rope_head_dim)
                + kv_lora_rank * heads * (qk_nope_head_dim + v_head_dim)
                + heads * v_head_dim * hidden_size * CASE WHEN attn_output_gate THEN 2 ELSE 1 END)
        END AS softmax_parameters,
        -- An index has a query of each of its heads, one key and a weight of each head (DeepSeek-V3.2, arXiv 2512.02556).
        index_layers * coalesce(index_head_dim * (coalesce(q_lora_rank, hidden_size) * index_n_heads + hidden_size)
            + hidden_size * index_n_heads, 0) AS index_parameters,
        coalesce(linear_layers * (  -- NULL without such layers
            hidden_size * (2 * linear_attention.key_width + 2 * linear_attention.value_width
                + linear_attention.gate_inputs)
            + linear_attention.gate_parameters
            + linear_attention.conv_kernel * (2 * linear_attention.key_width + linear_attention.value_width)), 0)
            AS linear_parameters,
        softmax_parameters + index_parameters + linear_parameters AS attention_parameters,
        mlp_matrices * hidden_size * coalesce(list_sum(intermediate_sizes)::BIGINT, dense_layers * dense_width, 0)
            + moe_layers * mlp_matrices * hidden_size * coalesce(shared_width, 0)
            + moe_layers * 2 * hidden_size * coalesce(moe_latent_size, 0) AS dense_mlp_parameters,
        moe_layers * mlp_matrices * coalesce(moe_latent_size, hidden_size) * coalesce(expert_width, 0)
            AS expert_parameters,
        moe_layers * experts * (hidden_size + CASE WHEN router_bias THEN 1 ELSE 0 END) AS router_parameters,
        (layers * norms_per_layer + 1) * hidden_size
            + layers * CASE WHEN qk_norm THEN 2 * head_size ELSE 0 END
            + layers * (coalesce(q_lora_rank, 0) + coalesce(kv_lora_rank, 0)) AS norm_parameters,
        -- A vision transformer (modeling_qwen3_vl of transformers): four matrices of attention, an MLP, mergers of two.
        vision_parameters + coalesce(
            vision.layers * vision.hidden_size
                * (4 * vision.hidden_size + vision.mlp_matrices * vision.intermediate_size)
            + vision.hidden_size * (vision.positions + vision.patch_inputs)
            + vision.mergers * vision.merged_size * (vision.merged_size + vision.out_size), 0) AS tower_parameters
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
    coalesce(kv_lora_rank, o_lora_rank) IS NOT NULL AS mla,
    attention_layers,
    linear_layers,
    local_layers,
    global_layers,
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
    tower_parameters AS vision_parameters,
    attention_parameters + dense_mlp_parameters + experts * expert_parameters AS quantizable_parameters,
    embedding_parameters + head_parameters + router_parameters + norm_parameters + tower_parameters
        AS unquantized_parameters,
    quantizable_parameters + unquantized_parameters AS parameters,
    parameters - (experts - experts_per_token) * expert_parameters - tower_parameters AS active_parameters,
    -- Stored beside them, and loaded for speculative decoding only: layers of the model's own kind, each with a matrix
    -- that joins two hidden states.
    num_nextn_predict_layers * (2 * hidden_size * hidden_size
        + coalesce(softmax_parameters // nullif(attention_layers, 0), 0)
        + CASE WHEN moe_layers > 0 THEN (experts * expert_parameters + moe_layers
                * (mlp_matrices * hidden_size * coalesce(shared_width, 0) + 2 * hidden_size * coalesce(moe_latent_size, 0)))
            // moe_layers ELSE mlp_matrices * hidden_size * coalesce(dense_width, 0) END) AS mtp_parameters,
    -- Cached numbers of a token in one global layer: K and V of every KV head; of MLA the latent and the shared key.
    CASE WHEN kv_lora_rank IS NOT NULL THEN kv_lora_rank + qk_rope_head_dim
        WHEN o_lora_rank IS NOT NULL THEN head_size
        ELSE kv_heads * (head_size + value_size) END AS kv_values_per_layer,
    CASE WHEN mla THEN kv_values_per_layer ELSE local_kv_heads * (local_head_size + local_value_size) END
        AS local_kv_values_per_layer,
    CASE WHEN mla THEN kv_heads ELSE local_kv_heads END AS local_kv_heads,
    -- Layers' worth of tokens that compressed layers cache beside their window.
    coalesce(list_sum(list_transform(list_filter(compress_ratios, lambda ratio: ratio > 0), lambda ratio: 1 / ratio)), 0)
        AS compressed_layers,
    -- Bytes of an index's key a token over all layers: FP8 and an FP32 scale (vLLM, DeepseekV32IndexerCache); where
    -- layers compress, only those that do so least have one.
    coalesce(index_layers * (index_head_dim + 4) / coalesce(list_min(list_filter(compress_ratios, lambda ratio: ratio > 0)), 1), 0)
        AS index_bytes_per_token,
    index_topk,
    -- FLOPs of a token's attention to one earlier token in one layer (scores and values, a multiply-add is 2). MLA
    -- decodes over the latent (its matrices absorbed) and prefills over the heads' own keys and values.
    CASE WHEN kv_lora_rank IS NOT NULL THEN heads * 2 * (2 * kv_lora_rank + qk_rope_head_dim)
        ELSE heads * 2 * (head_size + value_size) END AS decode_attention_flops,
    CASE WHEN kv_lora_rank IS NOT NULL THEN heads * 2 * (qk_nope_head_dim + qk_rope_head_dim + v_head_dim)
        ELSE heads * 2 * (head_size + value_size) END AS prefill_attention_flops,
    CASE WHEN mla THEN 1 ELSE local_heads * (local_head_size + local_value_size) / (heads * (head_size + value_size)) END
        AS local_flops_share,
    names,
    source,
    note
FROM parts;

-- Tokens times layers that are cached for a request of that length: a local layer keeps its window.
CREATE OR REPLACE MACRO cached_layer_tokens(shape, tokens, gpus) AS
    (shape.global_layers + shape.compressed_layers) * tokens
        + shape.local_layers * least(tokens, coalesce(shape.window_tokens, 0)) * local_kv_share(shape, gpus);

-- True if vLLM splits the attention over so many GPUs: heads are divided; KV heads are divided, or repeated where there
-- are fewer of them than GPUs (vLLM, verify_with_parallel_config of config/model.py, and the attention of its models;
-- MLA has no KV heads to divide). NULL where the number of GPUs is unknown.
CREATE OR REPLACE MACRO divides_heads(shape, gpus) AS
    shape.heads % gpus = 0 AND (shape.mla OR shape.kv_heads % gpus = 0 OR gpus % shape.kv_heads = 0);

-- How many copies of the KV cache tensor parallelism stores over all GPUs: KV heads are split until each GPU has one,
-- then repeated; MLA's latent belongs to all heads and lies on every GPU (vLLM, QKVParallelLinear and MLA).
CREATE OR REPLACE MACRO kv_copies_of(mla, kv_heads, gpus) AS
    CASE WHEN mla THEN gpus ELSE greatest(gpus, kv_heads) / kv_heads END;

CREATE OR REPLACE MACRO kv_copies(shape, gpus) AS kv_copies_of(shape.mla, shape.kv_heads, gpus);

-- What a token takes in a local layer's cache, as a share of what it takes in a global one's.
CREATE OR REPLACE MACRO local_kv_share(shape, gpus) AS
    shape.local_kv_values_per_layer * kv_copies_of(shape.mla, shape.local_kv_heads, gpus)
        / (shape.kv_values_per_layer * kv_copies(shape, gpus));

-- Bytes of KV cache of one token in one layer, and of a request of that length, over all GPUs that share the model.
CREATE OR REPLACE MACRO kv_token_bytes(shape, value_bytes, gpus) AS
    shape.kv_values_per_layer * value_bytes * kv_copies(shape, gpus);

CREATE OR REPLACE MACRO kv_request_bytes(shape, tokens, value_bytes, gpus) AS
    cached_layer_tokens(shape, tokens, gpus) * kv_token_bytes(shape, value_bytes, gpus)
        + shape.index_bytes_per_token * tokens * gpus;

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
-- Layers of several precisions (mixed) have no size of their own: mixed_bytes is that of a checkpoint's files.
-- A combination whose memory is unknown, or whose attention heads the GPUs can't share, has NULL and a reason.
CREATE OR REPLACE MACRO memory_fit_at(
    context := 8192, utilization := 0.9, kv_dtype := 'auto', engine_gib := 1.5, counts := [1, 2, 4, 8],
    mixed_bytes := NULL
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
    CROSS JOIN (
        SELECT format, bits, scale_bits, values_per_scale FROM store.number_formats WHERE holds = 'weights'
        UNION ALL
        SELECT 'mixed', NULL, NULL, NULL WHERE mixed_bytes IS NOT NULL
    ) w
    CROSS JOIN store.gpus g
    CROSS JOIN (SELECT unnest(counts) AS gpu_count) n
    JOIN store.number_formats k ON k.holds = 'kv_cache' AND k.format = kv_dtype
    WHERE g.vram_gb IS NOT NULL
),
modelled AS (
    SELECT
        'nominal' AS memory_model,
        *,
        NULL::DOUBLE AS gpu_memory_utilization,
        vram_gb * 1e9 * gpu_count AS memory_bytes,
        nominal_billions * 1e9 * nominal_weight_bytes AS weights_bytes,
        0 AS engine_bytes,
        coalesce(not_shared, CASE WHEN nominal_billions IS NULL THEN 'no_nominal_parameters'
            WHEN nominal_weight_bytes IS NULL THEN 'no_nominal_bits' END) AS null_reason
    FROM combinations
    UNION ALL BY NAME
    SELECT
        'practical' AS memory_model,
        *,
        utilization::DOUBLE AS gpu_memory_utilization,
        nvml_memory_mib * 1048576 * utilization * gpu_count AS memory_bytes,
        CASE WHEN precision = 'mixed' THEN mixed_bytes ELSE checkpoint_bytes(shape, weight_bytes) END AS weights_bytes,
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
