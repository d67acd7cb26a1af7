-- Shapes of hybrids, of models whose layers differ, and of layers that choose tokens by an index; filled anew from the
-- configuration, which changes with it.
ALTER TABLE store.architectures ALTER COLUMN intermediate_size DROP NOT NULL;
ALTER TABLE store.architectures ADD COLUMN intermediate_sizes BIGINT[];
ALTER TABLE store.architectures ADD COLUMN mlp_matrices BIGINT DEFAULT 3;
ALTER TABLE store.architectures ADD COLUMN mlp_layer_types VARCHAR[];
ALTER TABLE store.architectures ADD COLUMN swa_num_attention_heads BIGINT;
ALTER TABLE store.architectures ADD COLUMN swa_num_key_value_heads BIGINT;
ALTER TABLE store.architectures ADD COLUMN swa_head_dim BIGINT;
ALTER TABLE store.architectures ADD COLUMN swa_v_head_dim BIGINT;
ALTER TABLE store.architectures ADD COLUMN attn_output_gate BOOLEAN DEFAULT false;
ALTER TABLE store.architectures ADD COLUMN attention_k_eq_v BOOLEAN DEFAULT false;
ALTER TABLE store.architectures ADD COLUMN linear_attention STRUCT(
    key_width BIGINT, value_width BIGINT, gate_inputs BIGINT, gate_parameters BIGINT, conv_kernel BIGINT);
ALTER TABLE store.architectures ADD COLUMN shared_expert_intermediate_size BIGINT;
ALTER TABLE store.architectures ADD COLUMN moe_latent_size BIGINT;
ALTER TABLE store.architectures ADD COLUMN o_lora_rank BIGINT;
ALTER TABLE store.architectures ADD COLUMN o_groups BIGINT DEFAULT 1;
ALTER TABLE store.architectures ADD COLUMN compress_ratios BIGINT[];
ALTER TABLE store.architectures ADD COLUMN index_n_heads BIGINT;
ALTER TABLE store.architectures ADD COLUMN index_head_dim BIGINT;
ALTER TABLE store.architectures ADD COLUMN index_topk BIGINT;
ALTER TABLE store.architectures ADD COLUMN index_layers BIGINT DEFAULT 0;
ALTER TABLE store.architectures ADD COLUMN num_nextn_predict_layers BIGINT DEFAULT 0;
ALTER TABLE store.architectures ADD COLUMN vision STRUCT(
    hidden_size BIGINT, layers BIGINT, intermediate_size BIGINT, mlp_matrices BIGINT, positions BIGINT,
    patch_inputs BIGINT, mergers BIGINT, merged_size BIGINT, out_size BIGINT);
