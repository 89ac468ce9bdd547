"""SGLang's options that cannot change which rows a router sees, by the reason why they cannot.

All fields of `ServerArgs`, 0.5.17 to 0.5.23, that `engine.options` does not name.
tests/engine/test_options.py holds both to the SGLang that is installed.
"""

from __future__ import annotations

APART: dict[str, tuple[str, ...]] = {
    why: tuple(names.split())
    for why, names in {
        "Addresses, processes, devices, start and end: no forward pass is touched.": (
            """
            admin_api_key api_key base_gpu_id custom_sigquit_handler detokenizer_worker_num
            device dist_init_addr dist_timeout enable_http2 enable_http_worker_reuseport
            enable_memory_saver enable_p2p_check enable_response_store enable_ssl_refresh
            engine_info_bootstrap_port fastapi_root_path gated_launch_port gc_threshold
            gpu_id_step grpc_mode grpc_port grpc_response_timeout_secs grpc_worker_threads host
            http2_initial_connection_window_size http2_max_concurrent_streams
            load_publish_endpoint load_snapshot_publish_interval nccl_port nnodes node_rank
            numa_node port random_seed sidecar sidecar_args skip_server_warmup sleep_on_idle
            smg_grpc_mode smg_http_sidecar_port soft_watchdog_timeout ssl_ca_certs ssl_certfile
            ssl_keyfile ssl_keyfile_password tokenizer_worker_num use_ray warmups
            watchdog_timeout
        """
        ),
        "What is logged, counted, traced or returned beside a pass.": (
            """
            aux_hidden_state_capture bucket_e2e_request_latency bucket_inter_token_latency
            bucket_time_to_first_token crash_dump_folder debug_tensor_dump_input_file
            debug_tensor_dump_layers debug_tensor_dump_output_folder decode_log_interval
            enable_cache_report enable_expert_distribution_metrics enable_forward_pass_metrics
            enable_layerwise_nvtx_marker enable_metrics enable_metrics_for_all_schedulers
            enable_mfu_metrics enable_profile_cuda_graph enable_request_time_stats_logging
            enable_return_aux_hidden_states enable_return_hidden_states
            enable_return_indexer_topk enable_return_routed_experts enable_trace
            expert_balancedness_report_mode expert_distribution_recorder_buffer_size
            expert_distribution_recorder_mode export_metrics_to_file export_metrics_to_file_dir
            extra_metric_labels forward_hooks forward_pass_metrics_ipc_name
            forward_pass_metrics_worker_id gc_warning_threshold_secs generation_tokens_buckets
            kv_canary kv_canary_real_data kv_canary_sweep_interval kv_events_config log_level
            log_level_http log_requests log_requests_format log_requests_level
            log_requests_target msprobe_dump_config otlp_service_name otlp_traces_endpoint
            prompt_tokens_buckets return_aux_hidden_state_layer_ids return_hidden_states_mode
            show_time_cost stat_loggers tokenizer_metrics_allowed_custom_labels
            tokenizer_metrics_custom_labels_header trace_modules
            uvicorn_access_log_exclude_prefixes
        """
        ),
        "How requests and answers are written, and how a token is picked from its row's logits.": (
            """
            allow_auto_truncate asr_max_buffer_seconds asr_max_concurrent_sessions
            batch_notify_size chat_template completion_template
            constrained_json_disable_any_whitespace constrained_json_max_whitespace_cnt
            constrained_json_whitespace_pattern context_length default_chat_template_kwargs
            disable_outlines_disk_cache disable_tokenizer_batch_decode
            dynamic_batch_tokenizer_batch_size dynamic_batch_tokenizer_batch_timeout
            enable_custom_logit_processor enable_dynamic_batch_tokenizer enable_mis
            enable_streaming_session enable_strict_thinking enable_tokenizer_batch_encode
            enable_watermark file_storage_path grammar_backend hf_chat_template_name
            incremental_streaming_output preferred_sampling_params reasoning_parser
            return_input_ids return_output_ids sampling_backend sampling_defaults
            sampling_mask_max_tokens served_model_name skip_tokenizer_init stream_interval
            stream_response_default_include_usage strip_thinking_cache tokenizer_backend
            tokenizer_mode tokenizer_path tool_call_parser tool_server
            trust_request_chat_template watermark_config watermark_context_window
            watermark_default_enabled watermark_enforce_all watermark_key watermark_key_b
            watermark_max_probability watermark_mixing_probability weight_version
        """
        ),
        "Where weights come from, their precision and their memory: a row is the same row.": (
            """
            checkpoint_engine_wait_weights_before_ready cpu_offload_gb custom_weight_loader
            decrypted_config_file delete_ckpt_after_loading download_dir dtype
            enable_fp32_lm_head enable_fused_moe_sum_all_reduce enable_shared_experts_attn_tp
            enable_weights_cpu_backup flashinfer_mxfp4_moe_precision json_model_override_args
            kt_cpuinfer kt_max_deferred_experts_per_token kt_num_gpu_experts kt_threadpool_count
            kt_weight_path load_format model_checksum model_config_parser
            model_loader_extra_config model_path modelexpress_config
            modelopt_checkpoint_restore_path modelopt_checkpoint_save_path modelopt_export_path
            modelopt_quant offload_group_size offload_mode offload_num_in_group
            offload_prefetch_step paged_experts_num_resident ple_offload_backend ple_offload_dir
            ple_offload_embedding quantization quantization_param_path quantize_and_serve
            remote_instance_weight_loader_backend remote_instance_weight_loader_seed_instance_ip
            remote_instance_weight_loader_seed_instance_service_port
            remote_instance_weight_loader_send_weights_group_ports
            remote_instance_weight_loader_start_seed_via_transfer_engine revision
            rl_quant_profile shared_experts_tp_size startup_weight_load_mode torchao_config
            trust_remote_code weight_cache_mode weight_cache_socket weight_cache_timeout
            weight_loader_disable_mmap weight_loader_drop_cache_after_load
            weight_loader_prefetch_checkpoints weight_loader_prefetch_num_threads
        """
        ),
        "What is kept of earlier tokens, and where: a row reads it, and stays where it is.": (
            """
            c128_page_size disable_chunked_prefix_cache disable_hybrid_swa_memory
            disable_radix_cache enable_decoder_swa_bounded_replay enable_dsa_cache_layer_split
            enable_encoder_swa_bounded_replay enable_flexkv enable_hierarchical_cache
            enable_int8_mamba_checkpoint enable_kv_cache_sharding enable_linear_replayssm
            enable_linker_mla_dedup enable_lmcache enable_mamba_cache_stochastic_rounding
            enable_page_major_kv_layout enable_session_radix_cache
            enable_unified_cache_external_linker enable_unified_memory flexkv_config_file
            hicache_host_memory_fraction hicache_host_memory_mode hicache_io_backend
            hicache_mem_layout hicache_ratio hicache_size hicache_storage_backend
            hicache_storage_backend_extra_config hicache_storage_prefetch_policy
            hicache_storage_prefetch_retry_max_attempts
            hicache_storage_prefetch_retry_poll_interval hicache_write_policy hisparse_config
            int8_mamba_ckpt_size kv_cache_dtype linear_replayssm_cache_len lmcache_config_file
            mamba_cache_philox_rounds mamba_full_memory_ratio mamba_max_states_per_path
            mamba_radix_cache_strategy mamba_ssm_dtype mamba_track_interval max_mamba_cache_size
            max_total_tokens mem_fraction_static page_size prefill_kv_cache_dequant_dtype
            prefill_only_disable_kv_cache qsa_indexer_dtype radix_cache_backend
            radix_eviction_policy radix_eviction_policy_config swa_full_tokens_ratio
            swa_prefix_tails unified_cache_external_linker_backend
            unified_cache_external_linker_config uses_mamba_radix_cache
        """
        ),
        "Which requests run when: any batch is one forward pass of one row per request.": (
            """
            abort_on_priority_when_disabled chunked_prefill_size default_priority_value
            disable_overlap_schedule disable_priority_preemption enable_dynamic_chunking
            enable_priority_scheduling load_balance_method max_prefill_tokens
            max_queued_requests max_running_requests min_free_slots_delay
            prefill_decode_interval prefill_decode_interval_min_bs prefill_max_requests
            priority_scheduling_preemption_threshold retraction_policy schedule_conservativeness
            schedule_low_priority_values_first schedule_policy scheduler_recv_interval
        """
        ),
        "Which kernel computes a row, or sums it over ranks, in place.": (
            """
            attention_backend bf16_gemm_backend dcp_comm_backend dcp_replicate_q_proj
            decode_attention_backend disable_aiter_allreduce_fusion_in_decode
            disable_aiter_allreduce_fusion_in_prefill disable_custom_all_reduce
            disable_flashinfer_autotune dsa_decode_backend dsa_paged_mqa_logits_backend
            dsa_prefill_backend dsa_topk_backend dsa_triton_union dsv4_attn_backend
            dsv4_prefill_backend enable_aiter_allreduce_fusion enable_deepseek_v4_fp4_indexer
            enable_dsa_fused_indexer enable_flashinfer_allreduce_fusion
            enable_fused_qk_norm_rope enable_lean_attention enable_mscclpp enable_nccl_nvls
            enable_precise_embedding_interpolation enable_quant_communications enable_symm_mem
            enable_tf32_matmul enable_torch_symm_mem enforce_disable_flashinfer_allreduce_fusion
            flashinfer_allreduce_fusion_backend flashinfer_autotune_skip_ops
            flashinfer_mla_disable_ragged fp4_gemm_runner_backend fp8_gemm_runner_backend
            linear_attn_backend linear_attn_decode_backend linear_attn_prefill_backend
            linear_attn_verify_backend mamba_backend mlx_enable_sampling mm_attention_backend
            pre_warm_nccl prefill_attention_backend triton_attention_num_kv_splits
            triton_attention_reduce_in_fp32 triton_attention_split_tile_size
        """
        ),
        "Graphs of prefills, which are no decode steps.": (
            """
            cuda_graph_backend_prefill cuda_graph_bs_prefill cuda_graph_max_bs_prefill
            cuda_graph_max_seq_len_prefill cuda_graph_prefill_max_context cuda_graph_tc_compiler
            disable_prefill_cuda_graph enable_cudagraph_gc
        """
        ),
        "What becomes of pictures and sounds before they are tokens of a prefill.": (
            """
            allowed_media_domains disable_fast_image_processor
            enable_adaptive_dispatch_to_encoder enable_broadcast_mm_inputs_process
            enable_mm_global_cache enable_multimodal enable_prefix_mm_cache
            encoder_bootstrap_port encoder_only encoder_register_urls encoder_transfer_backend
            encoder_urls image_processor_backend keep_mm_feature_on_device language_model_only
            limit_mm_data_per_request media_url_max_file_size_mb mm_enable_dp_encoder
            mm_feature_transport mm_global_cache_backend mm_io_worker_num
            mm_preprocess_cache_size_mb mm_process_config mm_processor_worker_num
            trust_mm_content_hashes
        """
        ),
        "Weights added to a row's own; the rows keep their order.": (
            """
            enable_lora enable_lora_overlap_loading experts_shared_outer_loras lora_backend
            lora_drain_wait_threshold lora_eviction_policy lora_paths lora_strict_loading
            lora_target_modules max_loaded_loras max_lora_chunk_size max_lora_rank
            max_loras_per_batch
        """
        ),
        "How a prefill server hands over to a decode server, whose steps are decode steps.": (
            """
            disaggregation_bootstrap_port disaggregation_decode_allocation_policy
            disaggregation_decode_enable_offload_kvcache
            disaggregation_decode_enable_radix_cache disaggregation_decode_extra_slots
            disaggregation_decode_host_receive_threshold disaggregation_decode_polling_interval
            disaggregation_decode_retraction_backup disaggregation_enable_kv_checksum
            disaggregation_ib_device disaggregation_transfer_backend num_reserved_decode_tokens
            optimistic_prefill_attempts
        """
        ),
        "Where copies of an expert lie (EPLB), which is asked after the router has chosen.": (
            """
            ep_dispatch_algorithm eplb_algorithm eplb_min_rebalancing_utilization_threshold
            eplb_rebalance_layers_per_chunk eplb_rebalance_num_iterations
        """
        ),
        "How drafts are made and accepted; a verify pass tells its rows (`engine.drafts`).": (
            """
            _speculative_draft_quantization_explicitly_set decoupled_spec_bind_endpoint
            decoupled_spec_connect_endpoints decoupled_spec_rank decrypted_draft_config_file
            enable_draft_weights_cpu_backup enable_linear_replayssm_spec
            enable_multi_layer_eagle spec_trace_dir speculative_accept_threshold_acc
            speculative_accept_threshold_single speculative_adaptive speculative_adaptive_config
            speculative_attention_mode speculative_boundary_reduction
            speculative_dflash_block_size speculative_domino_candidate_pool_size
            speculative_draft_attention_backend speculative_draft_kv_cache_dtype
            speculative_draft_load_format speculative_draft_model_path
            speculative_draft_model_quantization speculative_draft_model_revision
            speculative_draft_sink_size speculative_draft_window_size
            speculative_dsa_topk_backend speculative_dspark_align_verify_tokens_to_graph_tier
            speculative_dspark_block_size speculative_dspark_confidence_sts_path
            speculative_dspark_sps_table_path speculative_eagle_topk
            speculative_enable_w4a4_mxfp4_megamoe speculative_moe_a2a_backend
            speculative_moe_runner_backend speculative_ngram_capacity
            speculative_ngram_external_corpus_max_tokens speculative_ngram_external_corpus_path
            speculative_ngram_external_sam_budget speculative_ngram_match_type
            speculative_ngram_max_bfs_breadth speculative_ngram_max_trie_depth
            speculative_ngram_min_bfs_breadth speculative_num_draft_tokens speculative_num_steps
            speculative_skip_dp_mlp_sync speculative_token_map
            speculative_use_block_verification speculative_use_rejection_sampling uno_lora_path
        """
        ),
        "Of DP attention: which requests run when, who computes dense layers and the LM head.": (
            """
            disable_flashinfer_cutlass_moe_fp4_allgather enable_dense_mlp_attn_tp
            enable_dp_attention_local_control_broadcast enable_dp_lm_head enable_prefill_delayer
            enable_tp_lm_head_all_to_all prefill_delayer_forward_passes_buckets
            prefill_delayer_max_delay_ms prefill_delayer_max_delay_passes
            prefill_delayer_queue_min_ratio prefill_delayer_token_usage_low_watermark
            prefill_delayer_wait_seconds_buckets
        """
        ),
        "Of all-to-all backends, elastic EP and LayerNorm SP, which are refused.": (
            """
            deepep_config deepep_dispatcher_output_dtype deepep_mode deepep_v2_mode
            elastic_ep_initial_size elastic_ep_rejoin elastic_ep_scale_timeout
            enable_elastic_expert_backup enable_megamoe_for_layernorm_sp
            enable_w4a4_mxfp4_megamoe ep_join_rank_offset flashinfer_a2a_dispatch_type
            fuseep_mode max_ep_size mooncake_ib_device
        """
        ),
        "Of options that are refused, or that turn one on: that one's resolved value is read.": (
            """
            dllm_algorithm_config dllm_fdfo enable_torch_compile_debug_mode pdmux_config_path
            rl_on_policy_target sm_group_num tbo_token_distribution_threshold
            torch_compile_max_bs
        """
        ),
        "SGLang's own notes of what was typed.": (
            """
            _radix_eviction_policy_explicitly_set _swa_full_tokens_ratio_explicitly_set
        """
        ),
    }.items()
}
"""Why -> the options, as fields of `ServerArgs`."""
