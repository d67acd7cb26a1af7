-- Model shapes and number formats from the configuration: replaced whole when it changes.
CREATE TABLE store.architectures (
    model VARCHAR NOT NULL,
    names VARCHAR[] NOT NULL,           -- lower case, its own among them
    nominal_billions DOUBLE,
    source VARCHAR NOT NULL,
    note VARCHAR,
    -- config.json's, under its names
    hidden_size BIGINT NOT NULL,
    num_hidden_layers BIGINT NOT NULL,
    num_attention_heads BIGINT NOT NULL,
    num_key_value_heads BIGINT,
    head_dim BIGINT,
    vocab_size BIGINT NOT NULL,
    tie_word_embeddings BOOLEAN NOT NULL,
    max_position_embeddings BIGINT,
    intermediate_size BIGINT NOT NULL,
    intermediate_size_mlp BIGINT,
    sliding_window BIGINT,
    use_sliding_window BOOLEAN NOT NULL,
    sliding_window_pattern BIGINT,
    layer_types VARCHAR[],
    num_experts BIGINT,
    num_experts_per_tok BIGINT,
    moe_intermediate_size BIGINT,
    n_shared_experts BIGINT,
    first_k_dense_replace BIGINT NOT NULL,
    moe_layer_step BIGINT NOT NULL,
    kv_lora_rank BIGINT,
    q_lora_rank BIGINT,
    qk_nope_head_dim BIGINT,
    qk_rope_head_dim BIGINT,
    v_head_dim BIGINT,
    -- what the model's code adds
    norms_per_layer BIGINT NOT NULL,
    qk_norm BOOLEAN NOT NULL,
    router_bias BOOLEAN NOT NULL,
    shared_experts BIGINT NOT NULL,
    vision_parameters BIGINT NOT NULL
);

CREATE TABLE store.number_formats (
    holds VARCHAR NOT NULL,             -- weights or kv_cache
    format VARCHAR NOT NULL,            -- a precision, or the engine's name of a KV dtype
    bits DOUBLE NOT NULL,
    scale_bits DOUBLE NOT NULL,
    values_per_scale BIGINT,
    compute VARCHAR,                    -- fp16, fp8 or fp4: whose dense TFLOPS a native kernel reaches
    source VARCHAR NOT NULL
);

-- The limit of every load point, computed when its run is loaded and again when the configuration changes: as a view
-- it would make every query of validated_table plan the roofline anew.
CREATE TABLE store.run_bounds (
    run_id VARCHAR NOT NULL,
    operating_point VARCHAR NOT NULL,
    bound_tok_s DOUBLE,
    bound_by VARCHAR,
    no_bound VARCHAR
);
