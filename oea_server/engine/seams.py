"""Every place where SGLang calls us, in one table."""

from __future__ import annotations

from typing import NamedTuple


class Seam(NamedTuple):
    """A place where SGLang calls us. `kind` is a `HookType`; `hook` is MODULE:FUNCTION of ours."""

    target: str
    kind: str
    hook: str
    in_launcher: bool = False
    """Whether the seam is of use only in the process that serves HTTP: schedulers then need not
    import its module."""
    in_patch: bool = False
    """Whether a patched SGLang calls us there by itself."""


SEAMS = (
    Seam(
        "sglang.srt.server_args.ServerArgs.check_server_args",
        "BEFORE",
        "oea_server.engine.launch:before_check_server_args",
    ),
    Seam(
        "sglang.srt.model_loader.loader._initialize_model",
        "AFTER",
        "oea_server.engine.model_init:after_initialize_model",
    ),
    Seam(
        "sglang.srt.model_executor.model_runner.ModelRunner.load_model",
        "AFTER",
        "oea_server.engine.model_init:after_load_model",
    ),
    Seam(
        "sglang.srt.layers.moe.topk.select_experts",
        "AROUND",
        "oea_server.engine.topk:around_select_experts",
        in_patch=True,
    ),
    Seam(
        "sglang.srt.layers.moe.topk.TopK.forward_cuda",
        "AROUND",
        "oea_server.engine.triton_experts:around_forward_cuda",
    ),
    Seam(
        "sglang.srt.model_executor.model_runner.ModelRunner.forward",
        "AROUND",
        "oea_server.engine.forward_mode:around_forward",
    ),
    Seam(
        "sglang.srt.model_executor.runner.decode_cuda_graph_runner.DecodeCudaGraphRunner.capture_one_shape",
        "AROUND",
        "oea_server.engine.forward_mode:around_capture",
    ),
    Seam(
        "sglang.srt.speculative.eagle_utils.eagle_sample",
        "AFTER",
        "oea_server.engine.rejected:after_eagle_sample",
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request",
        "BEFORE",
        "oea_server.engine.warmup:before_generate_request",
    ),
    Seam(
        "sglang.srt.managers.schedule_batch.Req.__init__",
        "AFTER",
        "oea_server.engine.wishers:after_init",
    ),
    Seam(
        "sglang.srt.managers.scheduler_components.dp_attn.MLPSyncBatchInfo._get_local_tensor",
        "AFTER",
        "oea_server.engine.wish_gather:after_get_local_tensor",
    ),
    Seam(
        "sglang.srt.managers.scheduler_components.dp_attn.MLPSyncBatchInfo._get_fallback_tensor",
        "AFTER",
        "oea_server.engine.wish_gather:after_get_fallback_tensor",
    ),
    Seam(
        "sglang.srt.managers.scheduler_components.dp_attn.MLPSyncBatchInfo.all_gather",
        "AFTER",
        "oea_server.engine.wish_gather:after_all_gather",
    ),
    Seam(
        "sglang.srt.managers.scheduler_components.dp_attn.prepare_mlp_sync_batch_raw",
        "AFTER",
        "oea_server.engine.wish_gather:after_prepare",
    ),
    Seam(
        "sglang.srt.managers.scheduler.Scheduler.set_internal_state",
        "AROUND",
        "oea_server.engine.control:around_set_internal_state",
    ),
    Seam(
        "sglang.srt.managers.scheduler.Scheduler.get_internal_state",
        "AFTER",
        "oea_server.engine.control:after_get_internal_state",
    ),
    Seam(
        "sglang.srt.entrypoints.http_server._setup_and_run_http_server",
        "BEFORE",
        "oea_server.engine.http:before_setup_and_run_http_server",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.utils.auth.decide_request_auth",
        "AROUND",
        "oea_server.engine.locks:around_decide_request_auth",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._validate_one_request",
        "BEFORE",
        "oea_server.engine.request_bounds:before_validate_one_request",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request",
        "BEFORE",
        "oea_server.engine.request_bounds:before_generate_request",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request",
        "BEFORE",
        "oea_server.engine.wish_door:before_generate_request",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager.collect_metrics",
        "AFTER",
        "oea_server.engine.tier_times:after_collect_metrics",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        "AFTER",
        "oea_server.engine.request_wire:after_create_tokenized_object",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.utils.common.set_prometheus_multiproc_dir",
        "BEFORE",
        "oea_server.engine.metrics_folder:before_set_prometheus_multiproc_dir",
        in_launcher=True,
    ),
    Seam(
        "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware.__call__",
        "BEFORE",
        "oea_server.engine.locks:before_proxy_headers",
        in_launcher=True,
    ),
    Seam(
        "uvicorn.supervisors.multiprocess.Multiprocess.handle_hup",
        "AROUND",
        "oea_server.engine.hangup:around_handle_hup",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._dispatch_to_scheduler",
        "AROUND",
        "oea_server.engine.last_worker:around_dispatch_to_scheduler",
        in_launcher=True,
    ),
    Seam(
        "sglang.srt.entrypoints.http_server._setup_and_run_http_server",
        "AFTER",
        "oea_server.engine.last_worker:after_setup_and_run_http_server",
        in_launcher=True,
    ),
)
